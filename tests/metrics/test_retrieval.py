"""Retrieval metrics against sorting by hand."""

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.metrics.retrieval import (
    Vectors,
    hard_negative_accuracy,
    mean_reciprocal_rank,
    purchased_ranks,
    recall_at,
)


def some(rows: int, modalities: int, seed: int, share_present: float = 1.0) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, modalities, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, modalities, generator=generator) < share_present
    return Vectors(F.normalize(values, dim=-1), mask)


def cosine_by_hand(one: Vectors, i: int, other: Vectors, j: int) -> float | None:
    cosines = [
        sum(
            a * b
            for a, b in zip(one.values[i, m].tolist(), other.values[j, m].tolist(), strict=True)
        )
        for m in range(one.mask.shape[1])
        if one.mask[i, m] and other.mask[j, m]
    ]
    return sum(cosines) / len(cosines) if cosines else None


def rank_by_hand(queries: Vectors, items: Vectors, i: int, bought: int) -> float:
    scores = [cosine_by_hand(queries, i, items, j) for j in range(len(items))]
    scores = [float("-inf") if score is None else score for score in scores]
    above = sum(score > scores[bought] + 1e-12 for score in scores)
    equal = sum(abs(score - scores[bought]) <= 1e-12 for score in scores) - 1
    return 1 + above + equal / 2


@pytest.mark.parametrize(("modalities", "share_present"), [(1, 1.0), (2, 1.0), (2, 0.6)])
@pytest.mark.parametrize("chunk_queries", [1, 7, 100])
def test_ranks_are_those_of_sorting_all_items(modalities, share_present, chunk_queries):
    queries = some(20, modalities, seed=1, share_present=share_present)
    items = some(33, modalities, seed=2, share_present=share_present)
    purchased = torch.randint(0, 33, (20,), generator=torch.Generator().manual_seed(3))
    usable = (queries.mask & items.mask[purchased]).any(dim=1)
    got = purchased_ranks(queries[usable], items, purchased[usable], chunk_queries).tolist()
    rows = torch.nonzero(usable)[:, 0].tolist()
    assert got == [rank_by_hand(queries, items, i, int(purchased[i])) for i in rows]


def test_items_with_equal_vectors_tie_exactly_and_share_their_places():
    items = some(500, 1, seed=4)
    items = Vectors(items.values.float(), items.mask)
    items.values[100:104] = items.values[7]
    queries = Vectors(items.values[[7]], items.mask[[7]])
    for bought in (7, 100, 103):
        assert purchased_ranks(queries, items, torch.tensor([bought])).tolist() == [3.0]


def test_items_that_share_no_modality_with_the_query_come_last():
    values = torch.tensor(
        [[[1.0, 0.0], [0.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]
    )
    items = Vectors(values, values.any(dim=2))
    assert purchased_ranks(items[torch.tensor([0])], items, torch.tensor([1])).tolist() == [2.0]


def test_recall_and_reciprocal_rank_of_known_ranks():
    ranks = torch.tensor([1.0, 1.5, 10.0, 10.5, 400.0], dtype=torch.float64)
    assert recall_at(ranks, 1) == pytest.approx(1 / 5)
    assert recall_at(ranks, 10) == pytest.approx(3 / 5)
    assert mean_reciprocal_rank(ranks) == pytest.approx(
        (1 + 1 / 1.5 + 1 / 10 + 1 / 10.5 + 1 / 400) / 5
    )


def test_hard_negative_accuracy_counts_pairs_in_the_right_order_and_half_a_tie():
    queries, items = some(30, 2, seed=5, share_present=0.7), some(12, 2, seed=6, share_present=0.7)
    generator = torch.Generator().manual_seed(7)
    purchased = torch.randint(0, 12, (30,), generator=generator)
    hard = torch.randint(-1, 12, (30, 3), generator=generator)
    points = []
    for i in range(30):
        bought = cosine_by_hand(queries, i, items, int(purchased[i]))
        for j in hard[i].tolist():
            clicked = cosine_by_hand(queries, i, items, j) if j >= 0 else None
            if bought is not None and clicked is not None:
                equal = j == int(purchased[i])
                points.append(0.5 if equal else float(bought > clicked))
    assert hard_negative_accuracy(queries, items, purchased, hard) == pytest.approx(
        sum(points) / len(points)
    )


def test_without_hard_negatives_their_accuracy_is_unknown():
    vectors = some(3, 1, seed=8)
    none = torch.full((3, 2), -1)
    assert hard_negative_accuracy(vectors, vectors, torch.arange(3), none) is None
    assert hard_negative_accuracy(vectors, vectors, torch.arange(3), none[:, :0]) is None
