"""InfoNCE against a sum written out by hand, values and gradients."""

import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchrec_mm.losses.info_nce import Negatives, info_nce

module = import_module(info_nce.__module__)  # the room has the function under that name

TEMPERATURE = torch.tensor(0.2, dtype=torch.float64)


@pytest.fixture(autouse=True)
def chunks_of_four(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_KEYS", 4)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def some_ids(rows: int, seed: int) -> torch.Tensor:
    return torch.randint(-1, 6, (rows, 2), generator=torch.Generator().manual_seed(seed))


def example(queries=5):
    """Two blocks, of three chunks (the last one short) and of one, the first with keys missing."""
    valid = torch.rand(11, generator=torch.Generator().manual_seed(3)) < 0.7
    blocks = [
        Negatives(unit(11, 6, seed=2), some_ids(11, 4), valid),
        Negatives(unit(3, 6, seed=5), some_ids(3, 6)),
    ]
    return unit(queries, 6), unit(queries, 6, seed=1), some_ids(queries, 7), blocks


def by_hand(query, positive, ids, blocks, temperature) -> list[float]:
    losses = []
    for q, p, mine in zip(query.tolist(), positive.tolist(), ids.tolist(), strict=True):

        def logit(key, q=q):
            return sum(a * b for a, b in zip(q, key, strict=True)) / temperature

        wrong = [
            logit(key) - logit(p)
            for block in blocks
            for j, (key, other) in enumerate(
                zip(block.keys.tolist(), block.ids.tolist(), strict=True)
            )
            if (block.valid is None or block.valid[j])
            and not any(a == b != -1 for a, b in zip(mine, other, strict=True))
        ]
        top = max([0, *wrong])
        losses.append(top + math.log(math.exp(-top) + sum(math.exp(w - top) for w in wrong)))
    return losses


def test_each_query_is_scored_as_the_formula_says():
    args = example()
    expected = by_hand(*args, 0.2)
    assert info_nce(*args, TEMPERATURE).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 11, 50])
def test_where_chunks_end_changes_nothing(size, monkeypatch):
    args = example()
    monkeypatch.setattr(module, "CHUNK_KEYS", size)
    assert info_nce(*args, TEMPERATURE).tolist() == pytest.approx(by_hand(*args, 0.2), rel=1e-12)


@pytest.mark.parametrize("size", [4, 100])
def test_a_device_that_must_not_be_waited_for_has_the_same_losses(size, monkeypatch):
    query, positive, ids, blocks = example()
    besides = torch.tensor([[0, 3], [2, 1], [2, -1]])
    expected = info_nce(query, positive, ids, blocks, TEMPERATURE, besides)
    monkeypatch.setattr(module, "DEVICE_CHUNK_KEYS", size)
    monkeypatch.setattr(module, "_add", module._add_without_waiting)
    monkeypatch.setattr(module, "_chunk_keys", lambda query: size)
    found = info_nce(query, positive, ids, blocks, TEMPERATURE, besides)
    torch.testing.assert_close(found, expected)


def test_gradients_of_query_and_temperature_are_those_of_finite_differences():
    query, *rest = example()
    inputs = query.requires_grad_(), TEMPERATURE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, t: info_nce(q, *rest, t), inputs)


def test_a_gradient_of_the_gradient_is_refused_not_wrong():
    query, *rest = example()
    query.requires_grad_()
    loss = info_nce(query, *rest, TEMPERATURE).square().sum()
    (gradient,) = torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def dense(query, positive, ids, blocks, temperature):
    """All logits at once, differentiated by PyTorch."""
    keys = torch.cat([block.keys for block in blocks]).to(query.dtype)
    others = torch.cat([block.ids for block in blocks])
    same = ((ids[:, None] == others) & (others != -1)).any(dim=2)
    logits = (query @ keys.T / temperature).masked_fill(same, -torch.inf)
    logits = torch.cat([(query * positive).sum(1, keepdim=True) / temperature, logits], dim=1)
    return logits.logsumexp(dim=1) - logits[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.01])
def test_a_large_bank_in_half_precision_scores_as_all_logits_at_once(temperature, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_KEYS", 300)
    query, positive, ids = unit(16, 32), unit(16, 32, seed=1), some_ids(16, 2)
    keys = torch.cat([unit(2000, 32, seed=3), query[:3]]).half()  # some as close as can be
    blocks = [Negatives(keys, torch.arange(2003)[:, None].expand(-1, 2) - 1)]
    results = []
    for loss, dtype in ((info_nce, torch.float32), (dense, torch.float64)):
        q = query.to(dtype).requires_grad_()
        t = torch.tensor(temperature, dtype=dtype, requires_grad=True)
        value = loss(q, positive.to(dtype), ids, blocks, t)
        weights = torch.arange(1, 17, dtype=dtype)
        results.append((value.detach(), *torch.autograd.grad((value * weights).sum(), (q, t))))
    for got, expected in zip(*results, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5 * scale)


def test_a_missing_key_is_invisible_however_close_it_is():
    query, positive, ids, blocks = example()
    before = info_nce(query, positive, ids, blocks, TEMPERATURE)
    blocks[0].keys[~blocks[0].valid] = 100 * query[0]
    assert info_nce(query, positive, ids, blocks, TEMPERATURE).tolist() == before.tolist()


def test_a_key_that_shares_an_id_is_invisible_to_that_query_alone():
    query, positive, _, blocks = example()
    ids = torch.arange(10).view(5, 2) + 100
    before = info_nce(query, positive, ids, blocks, TEMPERATURE)
    blocks[1].ids[2, 1] = ids[3, 1]
    after = info_nce(query, positive, ids, blocks, TEMPERATURE)
    assert (before - after > 0).tolist() == [False, False, False, True, False]


def test_without_negatives_there_is_nothing_to_lose():
    query, positive, ids, blocks = example()
    none = Negatives(query[:0], ids[:0])
    for nothing in ([], [none], [none, none]):
        assert info_nce(query, positive, ids, nothing, TEMPERATURE).tolist() == [0] * 5


def test_a_query_whose_keys_are_all_masked_learns_nothing():
    query, positive, ids, blocks = example()
    temperature = TEMPERATURE.clone().requires_grad_()
    for block in blocks:
        block.ids[:, 0] = 50
    ids[2, 0] = 50
    loss = info_nce(query.requires_grad_(), positive, ids, blocks, temperature)
    loss.sum().backward()
    assert loss[2] == 0 and (query.grad[2] == 0).all()
    assert query.grad.isfinite().all() and (query.grad[1] != 0).any()
    before = temperature.grad.clone()
    info_nce(query, positive, ids, blocks, temperature)[2].backward()
    assert torch.equal(temperature.grad, before)


def test_no_queries_have_no_loss():
    query, positive, ids, blocks = example()
    assert info_nce(query[:0], positive[:0], ids[:0], blocks, TEMPERATURE).shape == (0,)


def test_the_coldest_temperature_stays_finite_and_exact():
    query, positive, ids, blocks = example()
    blocks[0].keys[2] = query[0]  # logits of 100 and of -100
    blocks[0].keys[3] = -query[1]
    got = info_nce(query.float(), positive.float(), ids, blocks, TEMPERATURE / 20)
    assert got.tolist() == pytest.approx(by_hand(query, positive, ids, blocks, 0.01), rel=1e-5)


def test_queries_in_half_precision_are_scored_in_float32():
    query, positive, ids, blocks = example()
    half = query.half().requires_grad_()
    loss = info_nce(half, positive, ids, blocks, TEMPERATURE.float())
    loss.sum().backward()
    expected = by_hand(half.detach().double(), positive, ids, blocks, 0.2)
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.float16
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any tensor made meanwhile had."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *made])
        return result


def test_no_tensor_grows_with_both_queries_and_keys(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_KEYS", 100)
    queries, keys = 50, 40_000
    ids = torch.arange(keys)[:, None].expand(-1, 2)
    blocks = [Negatives(unit(keys, 2).half(), ids, torch.ones(keys, dtype=torch.bool))]
    query = unit(queries, 2).float().requires_grad_()
    with Largest() as largest:
        info_nce(query, query.detach(), ids[:queries], blocks, TEMPERATURE).sum().backward()
    assert largest.numel <= 2 * keys  # a chunk's logits are 5 000, all would be 2 000 000


def test_ids_or_a_mask_of_the_wrong_shape_are_refused_by_name():
    query, positive, ids, _ = example()
    for block, complaint in (
        (Negatives(query, ids[:-1]), r"ids .* \(M, A\) = \(5, 2\), got \(4, 2\)"),
        (Negatives(query, ids[:, :1]), r"ids .* \(M, A\) = \(5, 2\), got \(5, 1\)"),
        (Negatives(query, ids, ids[:, 0]), r"valid .* bool \(M,\) = \(5,\), got torch.int64"),
    ):
        with pytest.raises(ValueError, match=complaint):
            info_nce(query, positive, ids, [block], TEMPERATURE)
