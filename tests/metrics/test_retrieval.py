"""Retrieval metrics against sorting by hand."""

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.metrics.retrieval import (
    hard_negative_accuracy,
    mean_reciprocal_rank,
    purchased_ranks,
    recall_at,
)


def some(rows: int, seed: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=-1)


def some_present(rows: int, seed: int, share: float = 0.7) -> torch.Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < share


def integers(low: int, high: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def cosine_by_hand(query: torch.Tensor, item: torch.Tensor, present: torch.Tensor) -> float:
    if not present:
        return float("-inf")
    return sum(a * b for a, b in zip(query.tolist(), item.tolist(), strict=True))


def rank_by_hand(query, items, present, bought: int) -> float:
    scores = [cosine_by_hand(query, *each) for each in zip(items, present, strict=True)]
    own = scores[bought]
    above = sum(score > own + 1e-12 for score in scores)
    equal = sum(score == own or abs(score - own) <= 1e-12 for score in scores) - 1
    return 1 + above + equal / 2


@pytest.mark.parametrize("share_present", [1.0, 0.6])
@pytest.mark.parametrize("chunks", [(1, 1), (7, 5), (100, 100)])
def test_ranks_are_those_of_sorting_all_items(share_present, chunks):
    queries, items = some(20, seed=1), some(33, seed=2)
    items[20:25] = items[3].clone()
    present, purchased = some_present(33, 3, share_present), integers(0, 33, (20,), 4)
    purchased[:3] = torch.tensor([3, 20, 24])
    items[~present] = torch.nan
    got = purchased_ranks(queries, items, present, purchased, *chunks).tolist()
    assert got == [
        rank_by_hand(query, items, present, int(bought))
        for query, bought in zip(queries, purchased, strict=True)
    ]


def test_items_with_equal_vectors_tie_exactly_however_the_products_are_cut():
    queries, items = some(40, seed=5, width=96), some(1000, seed=6, width=96)
    items[[0, 501, 999]] = items[250].clone()
    present = torch.ones(1000, dtype=torch.bool)
    for bought in (0, 250, 999):
        purchased = torch.full((40,), bought)
        ranks = [
            purchased_ranks(queries, items, present, purchased, *chunks)
            for chunks in ((40, 1000), (40, 7), (1, 501), (13, 999))
        ]
        assert all(torch.equal(other, ranks[0]) for other in ranks)
        assert ((ranks[0] * 2) % 2 == 1).all()  # three others tie: one and a half places more


def test_cosines_that_single_precision_cannot_tell_apart_are_told_apart():
    items = torch.tensor([[1.0, 2**-12], [1.0, -(2**-12)]])
    queries = torch.tensor([[1.0, 2**-13]])
    present = torch.ones(2, dtype=torch.bool)
    assert purchased_ranks(queries, items, present, torch.tensor([0])).tolist() == [1.0]
    assert purchased_ranks(queries, items, present, torch.tensor([1])).tolist() == [2.0]


def test_vectors_that_all_became_one_rank_in_the_middle():
    items = some(1, seed=7).repeat(11, 1)
    present = torch.ones(11, dtype=torch.bool)
    assert purchased_ranks(items[:1], items, present, torch.tensor([4])).tolist() == [6.0]


def test_items_without_a_vector_come_last_and_share_their_places():
    items = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    present = torch.tensor([True, True, False, False])
    for bought, rank in enumerate([1.0, 2.0, 3.5, 3.5]):
        got = purchased_ranks(items[:1], items, present, torch.tensor([bought]))
        assert got.tolist() == [rank]


def test_no_queries_have_no_ranks():
    none = torch.zeros(0, 6)
    items = some(3, seed=8)
    present = torch.ones(3, dtype=torch.bool)
    assert purchased_ranks(none, items, present, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_recall_and_reciprocal_rank_of_known_ranks():
    ranks = torch.tensor([1.0, 1.5, 10.0, 10.5, 400.0], dtype=torch.float64)
    assert recall_at(ranks, 1) == pytest.approx(1 / 5)
    assert recall_at(ranks, 10) == pytest.approx(3 / 5)
    expected = (1 + 1 / 1.5 + 1 / 10 + 1 / 10.5 + 1 / 400) / 5
    assert mean_reciprocal_rank(ranks) == pytest.approx(expected)


def test_hard_negative_accuracy_counts_pairs_in_the_right_order_and_half_a_tie():
    queries, items, present = some(30, seed=9), some(12, seed=10), some_present(12, 11)
    items[5] = items[6].clone()
    purchased, hard = integers(0, 12, (30,), 12), integers(-1, 12, (30, 3), 13)
    points = []
    for query, bought, clicks in zip(queries, purchased.tolist(), hard.tolist(), strict=True):
        own = cosine_by_hand(query, items[bought], present[bought])
        for clicked in clicks:
            if clicked >= 0 and present[bought] and present[clicked]:
                other = cosine_by_hand(query, items[clicked], present[clicked])
                points.append(0.5 if abs(own - other) <= 1e-12 else float(own > other))
    assert 0.5 in points
    got = hard_negative_accuracy(queries, items, present, purchased, hard)
    assert got == pytest.approx(sum(points) / len(points), abs=1e-15)


def test_without_hard_negatives_their_accuracy_is_unknown():
    vectors, present = some(3, seed=14), torch.ones(3, dtype=torch.bool)
    none = torch.full((3, 2), -1)
    assert hard_negative_accuracy(vectors, vectors, present, torch.arange(3), none) is None
    assert hard_negative_accuracy(vectors, vectors, present, torch.arange(3), none[:, :0]) is None
    assert hard_negative_accuracy(vectors, vectors, ~present, torch.arange(3), none + 1) is None
