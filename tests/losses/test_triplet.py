"""Triplet loss against distances written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.losses.triplet import triplet_loss

MARGIN = 0.3


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def example():
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    return unit(3, 4), unit(3, 4, seed=1), unit(3, 3, 4, seed=2), mask


def by_hand(query, positive, hard, mask) -> list[float]:
    def distance(a, b):
        return 1 - sum(x * y for x, y in zip(a, b, strict=True))

    losses = []
    for q, p, hs, ms in zip(query, positive, hard, mask, strict=True):
        real = [h for h, m in zip(hs, ms, strict=True) if m]
        parts = [max(0.0, distance(q, p) - distance(q, h) + MARGIN) for h in real]
        losses.append(sum(parts) / len(parts) if parts else 0.0)
    return losses


def test_each_query_is_scored_as_the_formula_says():
    args = example()
    expected = by_hand(*(x.tolist() for x in args))
    assert triplet_loss(*args, MARGIN).tolist() == pytest.approx(expected)


def test_gradients_are_those_of_finite_differences():
    query, *rest = example()
    query = query.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: triplet_loss(q, *rest, MARGIN), query)


def test_a_positive_closer_by_the_margin_costs_nothing():
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0]]])
    assert triplet_loss(east, east, north, torch.tensor([[True]]), margin=1.0).tolist() == [0.0]
    assert triplet_loss(east, east, north, torch.tensor([[True]]), margin=1.25).tolist() == [0.25]


def test_padding_is_invisible_whatever_it_holds():
    query, positive, hard, mask = example()
    before = triplet_loss(query, positive, hard, mask, MARGIN)
    hard[~mask] = 1e9
    assert triplet_loss(query, positive, hard, mask, MARGIN).tolist() == before.tolist()


def test_no_slots_at_all_cost_nothing():
    query, positive, hard, mask = example()
    assert triplet_loss(query, positive, hard[:, :0], mask[:, :0], MARGIN).tolist() == [0, 0, 0]


def test_a_mask_of_the_wrong_type_is_refused_by_name():
    query, positive, hard, mask = example()
    with pytest.raises(ValueError, match=r"bool \(B, H\) = \(3, 3\), got torch.float32"):
        triplet_loss(query, positive, hard, mask.float(), MARGIN)
