"""The strongest newcomer challenges the weakest owner, in each partition by itself."""

import torch

from torchrec_mm.ranking.eviction import contest, strength


def won(owned: list[list[int]], newcomers: list[int], partition: list[int]) -> list[tuple]:
    """(newcomer, partition, column) of every win."""
    partition = torch.tensor(partition, dtype=torch.int64)
    outcome = contest(torch.tensor(owned), torch.tensor(newcomers), partition)
    return sorted(zip(*(part.tolist() for part in outcome), strict=True))


def test_the_strongest_newcomer_takes_the_weakest_row():
    assert won([[5, 1, 3]], [2, 4], [0, 0]) == [(1, 0, 1)]  # 4 beats 1, then 2 meets 3
    assert won([[5, 1, 2]], [3, 4], [0, 0]) == [(0, 0, 2), (1, 0, 1)]


def test_of_equals_the_owner_stays():
    assert won([[2, 2]], [2, 2], [0, 0]) == []


def test_partitions_do_not_meet():
    assert won([[1, 1], [9, 9]], [5, 6, 7], [1, 1, 1]) == []
    assert won([[1, 1], [9, 8]], [5, 10, 6], [0, 1, 0]) == [(0, 0, 1), (1, 1, 1), (2, 0, 0)]


def test_more_newcomers_than_rows_leave_the_weaker_ones_out():
    assert won([[0, 0]], [1, 3, 2], [0, 0, 0]) == [(1, 0, 0), (2, 0, 1)]
    assert won([[0, 0]], [], []) == []


def test_strength_is_frequency_recency_or_frequency_over_age():
    counts, last, now = torch.tensor([4, 0]), torch.tensor([3, 0]), torch.tensor([10])
    assert strength("lfu", counts, last, now).tolist() == [4, 0]
    assert strength("lru", counts, last, now).tolist() == [3, 0]
    assert strength("distance_lfu", counts, last, now).tolist() == [0.5, 0]
