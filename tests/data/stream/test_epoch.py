"""The order of an epoch: every request once, alike for all ranks, resumable anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.epoch import WINDOW_GROUPS, EpochOrder, share_bounds

FOUR = BatchLimits(requests=4)


def order_of(group_sizes, limits=FOUR, seed=None, behaviours=None) -> EpochOrder:
    sizes = np.array(group_sizes)
    lengths = np.ones((sizes.sum(), 2), dtype=np.int32)
    if behaviours is not None:
        lengths[:, 1] = behaviours
    return EpochOrder(sizes, lengths, limits, seed)


def batches(order: EpochOrder, epoch=0, done=0) -> list[list[int]]:
    return [b.tolist() for w in order.windows(epoch, done=done) for b, _ in w.parts()]


def test_a_batch_never_straddles_two_windows():
    order = order_of([3] * (WINDOW_GROUPS + 2), BatchLimits(requests=10))
    assert [len(batch) for batch in batches(order)] == [10, 10, 10, 10, 8, 6]


def test_without_a_seed_requests_keep_their_order_on_disk():
    assert sum(batches(order_of([5, 1, 4, 10])), []) == list(range(20))


def test_the_order_depends_on_seed_and_epoch_alone():
    first = batches(order_of([5] * 40, seed=3), epoch=1)
    assert first == batches(order_of([5] * 40, seed=3), epoch=1)
    assert first != batches(order_of([5] * 40, seed=4), epoch=1)
    assert first != batches(order_of([5] * 40, seed=3), epoch=2)


def test_each_epoch_brings_other_row_groups_together():
    first, second = (next(order_of([1] * 40, seed=3).windows(epoch)) for epoch in (0, 1))
    assert set(first.order) != set(second.order)


def test_each_window_of_an_epoch_is_shuffled_in_its_own_way():
    first, second = order_of([5] * 2 * WINDOW_GROUPS, seed=3).windows(0)
    assert (first.order % 5).tolist() != (second.order % 5).tolist()


def test_a_reader_needs_the_row_groups_of_one_window_only():
    sizes = [5] * 40
    for window in order_of(sizes, seed=3).windows(0):
        assert len(np.unique(window.order // 5)) <= WINDOW_GROUPS


def test_shuffling_mixes_the_row_groups_of_a_window():
    first = batches(order_of([50] * WINDOW_GROUPS, BatchLimits(requests=50), seed=0))[0]
    assert len(np.unique(np.array(first) // 50)) > WINDOW_GROUPS // 2


@pytest.mark.parametrize(
    ("behaviours", "most", "sizes"),
    [
        ([4, 4, 4, 4], 8, [2, 2]),
        ([4, 5, 4, 4], 8, [1, 1, 2]),
        ([1, 99, 1, 1], 8, [1, 1, 2]),  # one request may exceed the limit
        ([0, 0, 0, 0], 1, [4]),
    ],
)
def test_a_batch_holds_as_many_requests_as_its_behaviours_allow(behaviours, most, sizes):
    order = order_of([4], BatchLimits(requests=10, behaviours=most), behaviours=behaviours)
    assert [len(batch) for batch in batches(order)] == sizes


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 6))
def test_shares_are_contiguous_and_none_is_empty_if_there_are_enough_requests(costs, ranks):
    bounds = share_bounds(np.array(costs), ranks)
    assert bounds[0] == 0 and bounds[-1] == len(costs) and (np.diff(bounds) >= 0).all()
    if len(costs) >= ranks:
        assert (np.diff(bounds) > 0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=6, max_size=40), st.integers(1, 6))
def test_a_share_costs_a_fair_part_and_at_most_a_request_more(costs, ranks):
    costs = np.array(costs)
    bounds = share_bounds(costs, ranks)
    shares = [costs[a:b].sum() for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    assert max(shares) <= costs.sum() / ranks + costs.max()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=20))
def test_two_shares_are_as_even_as_one_cut_can_make_them(costs):
    cut = share_bounds(np.array(costs), 2)[1]
    larger = [max(sum(costs[:at]), sum(costs[at:])) for at in range(1, len(costs))]
    assert larger[cut - 1] == min(larger)
