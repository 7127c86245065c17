"""Gathered attention, compiled and plain, against an oracle in plain Python."""

import math

import pytest
import torch
from torch import Tensor

from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.kernels.gathered_attention import gathered_attention, gathered_attention_reference

IMPRESSIONS, M, K, S = 13, 4, 6, 9
JUNK = (-1, 2**31 - 1, -(2**31), S)

Case = dict[str, Tensor | None]


@pytest.fixture(params=["compiled", "plain"])
def either(request, monkeypatch):
    """Both versions; where there is no compiler they are the same one."""
    monkeypatch.setenv(SWITCH, "1" if request.param == "compiled" else "0")


def case(width: int = 16, cosine: bool = True, shared: bool = True, seed: int = 0) -> Case:
    """Row 0 is empty, row 1 full; requests come unsorted, and the last one has no impression."""
    generator = torch.Generator().manual_seed(seed)
    rows = M if shared else IMPRESSIONS
    length = torch.randint(0, K + 1, (rows,), generator=generator, dtype=torch.int32)
    length[0], length[1] = 0, K
    padding = torch.arange(K) >= length[:, None]
    junk = torch.tensor(JUNK, dtype=torch.int32)[torch.arange(K) % len(JUNK)].expand(rows, K)
    slots = torch.randint(0, S, (rows, K), generator=generator, dtype=torch.int32)
    request = torch.randint(0, M - 1, (IMPRESSIONS,), generator=generator, dtype=torch.int32)
    request[:3] = torch.tensor([2, 0, 1])
    unknown = padding[request] if shared else padding
    similarity = torch.rand(IMPRESSIONS, K, generator=generator).masked_fill(unknown, math.nan)
    return {
        "query": torch.randn(IMPRESSIONS, width, generator=generator).requires_grad_(),
        "table": torch.randn(S, width, generator=generator).requires_grad_(),
        "index": torch.where(padding, junk, slots),
        "length": length,
        "cosine": similarity if cosine else None,
        "mix": torch.tensor([0.7, 1.3, -0.4]).requires_grad_() if cosine else None,
        "request": request if shared else None,
    }


def double(given: Case) -> Case:
    """The same case in float64, with leaves of its own."""
    return {
        name: x.detach().double().requires_grad_(x.requires_grad)
        if x is not None and x.is_floating_point()
        else x
        for name, x in given.items()
    }


def oracle(given: Case) -> tuple[list[list[float]], list[list[float]]]:
    """Interest and mean, one impression and one behaviour at a time."""
    query, table = given["query"].tolist(), given["table"].tolist()
    kept = [row[:n] for row, n in zip(given["index"].tolist(), given["length"], strict=True)]
    width = len(table[0])
    interest = []
    for i, q in enumerate(query):
        slots = kept[i if given["request"] is None else given["request"][i]]
        scores = []
        for k, slot in enumerate(slots):
            dot = sum(x * y for x, y in zip(q, table[slot], strict=True)) / math.sqrt(width)
            if given["cosine"] is not None:
                (a, b, c), cosine = given["mix"].tolist(), given["cosine"][i, k].item()
                dot = a * dot + b * cosine + c * dot * cosine
            scores.append(math.exp(dot))
        weighted = [
            sum(w * table[slot][e] for w, slot in zip(scores, slots, strict=True))
            for e in range(width)
        ]
        interest.append([x / max(sum(scores), 1e-9) for x in weighted])
    mean = [
        [sum(table[slot][e] for slot in slots) / max(len(slots), 1) for e in range(width)]
        for slots in kept
    ]
    return interest, mean


def gradients(attention, given: Case) -> dict[str, Tensor]:
    """Of a fixed random weighting of both outputs, for every input that takes one."""
    interest, mean = attention(**given)
    generator = torch.Generator().manual_seed(7)
    loss = (interest * torch.randn(interest.shape, generator=generator)).sum()
    loss = loss + (mean * torch.randn(mean.shape, generator=generator)).sum()
    learnt = {name: x for name, x in given.items() if x is not None and x.requires_grad}
    return dict(zip(learnt, torch.autograd.grad(loss, list(learnt.values())), strict=True))


CASES = [
    pytest.param(width, cosine, shared, id=f"{width}-{cosine=}-{shared=}")
    for width in (5, 16, 32, 48, 64, 128, 150)
    for cosine, shared in ((True, False), (False, True))
] + [pytest.param(16, True, True, id="cosine-and-shared"), pytest.param(5, False, False, id="bare")]


@pytest.mark.parametrize("width, cosine, shared", CASES)
def test_each_impression_weighs_its_own_behaviours(either, width, cosine, shared):
    given = case(width, cosine, shared)
    for result, expected in zip(gathered_attention(**given), oracle(given), strict=True):
        torch.testing.assert_close(result, torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width, cosine, shared", CASES)
def test_gradients_are_those_of_the_definition_in_float64(either, width, cosine, shared):
    given = case(width, cosine, shared)
    expected = gradients(gathered_attention_reference, double(given))
    for name, gradient in gradients(gathered_attention, given).items():
        close = torch.testing.assert_close
        close(gradient, expected[name].float(), atol=1e-5, rtol=1e-5, msg=lambda m, n=name: n + m)


def test_a_gradient_may_lie_in_memory_in_any_way(either):
    given = case()
    found = []
    for weight in (torch.ones(IMPRESSIONS, 16), torch.ones(()).expand(IMPRESSIONS, 16)):
        outputs = gathered_attention(**given)
        weights = [weight, weight[:M]]
        found.append(torch.autograd.grad(outputs, [given["query"], given["table"]], weights))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_gradient_of_the_kernels_gradient_is_refused_not_wrong():
    given = case()
    interest, _ = gathered_attention(**given)
    loss = interest.square().sum()
    (gradient,) = torch.autograd.grad(loss, given["query"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("cosine, shared", [(True, False), (False, True)])
def test_the_definition_has_the_gradients_of_finite_differences(cosine, shared):
    given = double(case(3, cosine, shared))
    learnt = [name for name, x in given.items() if x is not None and x.requires_grad]

    def run(*values: Tensor):
        return gathered_attention_reference(**{**given, **dict(zip(learnt, values, strict=True))})

    assert torch.autograd.gradcheck(run, [given[name] for name in learnt])


@pytest.mark.parametrize("shared", [True, False])
def test_what_padding_holds_changes_no_bit(either, shared):
    given = case(shared=shared)
    padding = torch.arange(K) >= given["length"][:, None]
    clean = {**given, "index": given["index"].masked_fill(padding, 0)}
    clean["cosine"] = given["cosine"].nan_to_num(0)
    for one, other in zip(gathered_attention(**given), gathered_attention(**clean), strict=True):
        assert torch.equal(one, other)
    expected = gradients(gathered_attention, clean)
    for name, gradient in gradients(gathered_attention, given).items():
        assert torch.equal(gradient, expected[name]) and gradient.isfinite().all()


def test_a_slot_that_only_padding_names_passes_nothing_on(either):
    given = case(shared=False)
    given["index"] = given["index"].clamp(1, S - 1)
    given["table"] = given["table"].detach().clone().requires_grad_()
    with torch.no_grad():
        given["table"][0] = math.nan
    given["index"].masked_fill_(torch.arange(K) >= given["length"][:, None], 0)
    assert all(x.isfinite().all() for x in gathered_attention(**given))
    assert not gradients(gathered_attention, given)["table"][0].any()


def test_empty_rows_give_zeros_and_take_no_gradient(either):
    given = case(shared=False)
    given["length"][:] = 0
    interest, mean = gathered_attention(**given)
    assert not interest.any() and not mean.any()
    assert not any(x.any() for x in gradients(gathered_attention, given).values())


def test_no_impression_and_no_behaviour_slot_are_fine(either):
    empty = {"query": torch.zeros(0, 16), "table": torch.zeros(0, 16), "cosine": None, "mix": None}
    empty |= {"index": torch.zeros(2, 0).int(), "length": torch.zeros(2).int()}
    interest, mean = gathered_attention(**empty, request=torch.zeros(0).int())
    assert interest.shape == (0, 16) and torch.equal(mean, torch.zeros(2, 16))


def test_an_impression_does_not_depend_on_the_rest_of_its_batch(either):
    given = case(shared=False)
    together, _ = gathered_attention(**given)
    for i in range(IMPRESSIONS):
        of_one = {n: given[n][i : i + 1] for n in ("query", "index", "length", "cosine")}
        alone, _ = gathered_attention(**{**given, **of_one})
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-6)


def test_a_row_given_once_equals_the_row_given_to_each_impression(either):
    given = case(shared=True)
    row = given["request"].long()
    spread = {"index": given["index"][row], "length": given["length"][row], "request": None}
    interest, mean = gathered_attention(**given)
    interest_spread, mean_spread = gathered_attention(**{**given, **spread})
    torch.testing.assert_close(interest, interest_spread, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mean[row], mean_spread, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_every_run_gives_the_same_bits_for_any_number_of_threads(shared):
    given = case(32, shared=shared, seed=3)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(
                (*gathered_attention(**given), *gradients(gathered_attention, given).values())
            )
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(run, runs[0], strict=True))


def test_scores_beyond_the_range_of_exp_are_no_trouble(either):
    given = case(shared=False)
    given["query"] = (given["query"].detach() * 1e3).requires_grad_()
    results, expected = gathered_attention(**given), gathered_attention_reference(**double(given))
    for result, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(result, exact.float(), atol=1e-3, rtol=1e-3)
    assert all(x.isfinite().all() for x in gradients(gathered_attention, given).values())


@pytest.mark.parametrize(
    "name, value", [("index", S), ("index", -1), ("length", K + 1), ("length", -1), ("request", M)]
)
def test_what_points_outside_is_refused_before_it_is_read(name, value):
    given = case()
    given[name] = given[name].clone()
    given[name].view(-1)[-1 if name != "index" else K] = value  # row 1 is full
    with pytest.raises(IndexError, match=f"{name} is out of its range"):
        gathered_attention(**given)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mix": None}, "cosine must be given exactly when mix is"),
        ({"request": None}, f"index must have {IMPRESSIONS} rows"),
        ({"index": torch.zeros(M, K).long()}, r"index must be torch.int32 \(4, 6\)"),
        ({"cosine": torch.zeros(IMPRESSIONS, K + 1)}, r"cosine must be torch.float32 \(13, 6\)"),
        ({"table": torch.zeros(S, 8)}, r"table must be torch.float32 \(9, 16\)"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gathered_attention(**{**case(), **change})
