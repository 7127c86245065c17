"""Target attention over jagged requests: compiled and plain, against the padded definition."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.kernels.target_attention import (
    RequestLists,
    padded_places,
    target_attention,
    target_attention_reference,
)
from torchrec_mm.nn.target_attention import TargetAttention

SLOTS = 30


@pytest.fixture(params=["compiled", "plain"])
def either(request, monkeypatch):
    """Both versions; where there is no compiler they are the same one."""
    monkeypatch.setenv(SWITCH, "1" if request.param == "compiled" else "0")


@dataclass
class Case:
    """What the function is given, and weights of gradients to come in."""

    module: TargetAttention
    targets: Tensor
    table: Tensor
    index: Tensor
    lists: RequestLists
    cosine: Tensor | None

    def double(self) -> "Case":
        """The same in float64, with leaves of its own."""
        module = TargetAttention(self.table.shape[1], side_information=self.cosine is not None)
        module.load_state_dict(self.module.state_dict())
        return replace(
            self,
            module=module.double(),
            targets=self.targets.detach().double().requires_grad_(),
            table=self.table.detach().double().requires_grad_(),
            cosine=None if self.cosine is None else self.cosine.double(),
        )

    def run(self, attend=target_attention) -> tuple[list[Tensor], list[Tensor]]:
        """Results, and gradients of all that learns."""
        given = (self.module, self.targets, self.table, self.index, self.lists, self.cosine)
        found = [x for x in attend(*given) if x is not None]
        wanted = [self.targets, self.table, *self.module.parameters()]
        waves = [torch.linspace(0, 9, x.numel()).sin().view_as(x).to(x.dtype) for x in found]
        loss = sum((x * wave).sum() for x, wave in zip(found, waves, strict=True))
        return found, list(torch.autograd.grad(loss, wanted))


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def case(
    candidates: list[int], behaviours: list[int], *, width: int = 32, cosine: bool = False
) -> Case:
    torch.manual_seed(0)
    pairs = sum(c * b for c, b in zip(candidates, behaviours, strict=True))
    return Case(
        TargetAttention(width, side_information=cosine),
        torch.randn(sum(candidates), width).requires_grad_(),
        torch.randn(SLOTS, width).requires_grad_(),
        torch.randint(0, SLOTS, (sum(behaviours),), dtype=torch.int32),
        RequestLists(
            offsets_of(candidates), offsets_of(behaviours), max(candidates), max(behaviours)
        ),
        torch.rand(pairs) * 2 - 1 if cosine else None,
    )


def definition(given: Case) -> list[Tensor]:
    """``TargetAttention`` on one request after another."""
    lists, parts, pair = given.lists, [], 0
    for r in range(len(lists.candidate_offsets) - 1):
        targets = given.targets[lists.candidate_offsets[r] : lists.candidate_offsets[r + 1]]
        index = given.index[lists.behaviour_offsets[r] : lists.behaviour_offsets[r + 1]]
        shape = (1, len(targets), len(index))
        mask = torch.ones(shape).bool()
        sides: tuple[Tensor, ...] = ()
        if given.cosine is not None:
            sides = (given.cosine[pair : pair + mask.numel()].view(shape), mask)
        pair += mask.numel()
        rows = given.table[index.long()][None]
        parts.append(given.module(targets[None], rows, torch.ones(1, len(index)).bool(), *sides)[0])
    pooled, width = torch.cat(parts), given.table.shape[1]
    return [pooled[:, :width], pooled[:, width]] if given.cosine is not None else [pooled]


SHAPES = {
    "ordinary": ([3, 1, 5, 2], [4, 9, 1, 6]),
    "no behaviour at all": ([3, 2], [0, 0]),
    "some without behaviours": ([3, 1, 2], [0, 7, 0]),
    "some without candidates": ([0, 4, 0], [5, 3, 2]),
    "no candidate at all": ([0], [5]),
    "one candidate, one behaviour": ([1], [1]),
    "more requests than blocks": ([1, 2] * 40, [3, 5] * 40),
    "10 000 behaviours beside one": ([2, 1], [10_000, 1]),
}


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("width", [4, 16, 20, 32, 48])
def test_results_and_gradients_are_those_of_the_definition_in_double(either, width, cosine):
    given = case(*SHAPES["ordinary"], width=width, cosine=cosine)
    exact = given.double()
    found, gradients = given.run()
    wanted, expected = exact.run(target_attention_reference)
    for one, other in zip(definition(exact), wanted, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip([*found, *gradients], [*wanted, *expected], strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_lists_of_any_lengths_give_what_the_definition_gives(either, shape, cosine):
    given = case(*SHAPES[shape], cosine=cosine)
    exact = given.double()
    (found, gradients), (_, expected) = given.run(), exact.run(target_attention_reference)
    for one, other in zip(found, definition(exact), strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-4, rtol=1e-3)


def test_an_impression_without_behaviours_has_no_interest(either):
    interest, mean = target_attention(*vars(case([2], [0], cosine=True)).values())
    assert interest.shape == (2, 32) and not interest.any() and mean.tolist() == [0, 0]


@pytest.mark.parametrize("cosine", [False, True])
def test_results_are_the_same_bits_for_any_number_of_threads(cosine):
    given, threads = case([2, 3] * 50, [7, 4] * 50, cosine=cosine), torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            runs.append(given.run())
    finally:
        torch.set_num_threads(threads)
    for found, gradients in runs[1:]:
        pairs = zip([*found, *gradients], [*runs[0][0], *runs[0][1]], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_gradients_that_are_not_contiguous_are_taken_as_they_are(either):
    given = case(*SHAPES["ordinary"], cosine=True)
    ones = [torch.ones_like(x) for x in target_attention(*vars(given).values())]
    spread = [torch.ones(1).expand_as(x) for x in ones]
    weights = list(given.module.parameters())
    one, other = (
        torch.autograd.grad(target_attention(*vars(given).values()), weights, grads)
        for grads in (ones, spread)
    )
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_an_activation_unit_of_another_size_goes_the_plain_way():
    given = replace(case(*SHAPES["ordinary"]), module=TargetAttention(32, hidden=5))
    found, _ = target_attention(*vars(given).values())
    torch.testing.assert_close(found, definition(given)[0])


@pytest.mark.parametrize("slot", [-1, SLOTS, 2**31 - 1])
def test_a_behaviour_that_is_no_row_is_refused(slot):
    given = case(*SHAPES["ordinary"])
    given.index[2] = slot
    with pytest.raises(IndexError, match="index"):
        target_attention(*vars(given).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": torch.zeros(11, 5)}, r"targets must be \(n, 32\), got \(11, 5\)"),
        ({"table": torch.zeros(32)}, r"table must be \(n, 32\), got \(32,\)"),
        ({"index": torch.zeros(20)}, r"index must be int32 \(T,\), got torch.float32"),
        ({"cosine": torch.zeros(3)}, "cosine must be given exactly when module has"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        target_attention(*vars(replace(case(*SHAPES["ordinary"]), **change)).values())


def test_places_of_padded_lists():
    places, real = padded_places(offsets_of([2, 0, 3]), 3)
    assert places.tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4]]
    assert real.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert padded_places(offsets_of([0]), 0)[1].tolist() == [[False]]
