"""Batches bounded by what padding makes of them: no long request is worth more than its share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.stream import batch_limits
from torchrec_mm.data.stream.batch_limits import PADDED, BatchLimits
from torchrec_mm.data.stream.epoch import EpochOrder

SEEDS = st.sampled_from([None, 0, 7])
LIMITS = st.builds(
    BatchLimits,
    requests=st.integers(1, 9),
    behaviours=st.sampled_from([None, 1, 12, 60]),
    attended=st.integers(0, 12),
    padded=st.integers(600, 6000),
)


@st.composite
def orders(draw) -> EpochOrder:
    """Mostly short requests, some long ones, in row groups of any sizes."""
    sizes = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=20)))
    rng, count = np.random.default_rng(draw(st.integers(0, 99))), sizes.sum()
    is_long = rng.random((count, 2)) < draw(st.sampled_from([0, 0.1, 0.5, 1]))
    candidates, behaviours = np.where(is_long, 20, 1).T * rng.integers(1, 10, (2, count))
    lengths = np.stack([candidates, behaviours - 1], axis=1).astype(np.int32)
    return EpochOrder(sizes, lengths, draw(LIMITS), draw(SEEDS))


def steps(order: EpochOrder, epoch=0, done=0) -> list[list[tuple[int, int, int]]]:
    """Request, first candidate and end of each piece, by global batch."""
    windows = order.windows(epoch, done=done)
    return [pieces_of(*part) for window in windows for part in window.parts()]


def pieces_of(rows, candidates) -> list[tuple[int, int, int]]:
    pairs = zip(rows.tolist(), candidates.tolist(), strict=True)
    return [(row, first, end) for row, (first, end) in pairs]


def size_of(batch: list[tuple[int, int, int]], order: EpochOrder) -> float:
    """In plain Python: what the longest lists make of the whole batch."""
    candidates = max(end - first for _, first, end in batch)
    behaviours = max(int(order.lengths[row, 1]) for row, _, _ in batch)
    return len(batch) * (candidates + 8) * (min(behaviours, order.limits.attended) + 32)


@settings(max_examples=60, deadline=None)
@given(orders())
def test_every_impression_is_in_exactly_one_batch(order):
    seen = [(row, i) for step in steps(order) for row, a, b in step for i in range(a, b)]
    every = [(row, i) for row, (many, _) in enumerate(order.lengths) for i in range(many)]
    assert sorted(seen) == every


@settings(max_examples=60, deadline=None)
@given(orders())
def test_a_batch_stays_within_all_limits_unless_it_is_as_small_as_can_be(order):
    limits = order.limits
    for batch in steps(order):
        assert len(batch) <= limits.requests
        if len(batch) > 1:
            behaviours = sum(int(order.lengths[row, 1]) for row, _, _ in batch)
            assert limits.behaviours is None or behaviours <= limits.behaviours
        if len(batch) > 1 or batch[0][2] - batch[0][1] > 1:
            assert size_of(batch, order) <= limits.padded


def is_piece(piece: tuple[int, int, int], order: EpochOrder) -> bool:
    return piece[2] - piece[1] < int(order.lengths[piece[0], 0])


@settings(max_examples=60, deadline=None)
@given(orders())
def test_a_piece_comes_alone_also_in_large_batches(order):
    """So that one rank has all pieces of a request, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_limits, "PADDED", 600)
        batches = steps(order)
    for batch in batches:
        assert len(batch) == 1 or not any(is_piece(piece, order) for piece in batch)


@settings(max_examples=60, deadline=None)
@given(orders())
def test_a_batch_of_whole_requests_takes_all_that_fit(order):
    limits = order.limits
    for window in order.windows(0):
        cut = [pieces_of(*part) for part in window.parts()]
        for batch, following in zip(cut, cut[1:], strict=False):
            wider = [*batch, following[0]]
            behaviours = sum(int(order.lengths[row, 1]) for row, _, _ in wider)
            assert (
                len(wider) > limits.requests
                or any(is_piece(piece, order) for piece in wider)
                or (limits.behaviours is not None and behaviours > limits.behaviours)
                or size_of(wider, order) > limits.padded
            )


@settings(max_examples=60, deadline=None)
@given(orders(), st.data())
def test_resuming_after_any_step_gives_the_steps_that_were_left(order, data):
    ends, every = order.ends(3), steps(order, 3)
    assert ends.tolist() == np.cumsum([len(batch) for batch in every]).tolist()
    step = data.draw(st.integers(0, len(ends)))
    done = int(ends[step - 1]) if step else 0
    assert steps(order, 3, done) == every[step:]
    assert order.ends(3, done=done).tolist() == ends[step:].tolist()


@settings(max_examples=60, deadline=None)
@given(orders())
def test_requests_come_in_the_order_that_they_have_without_a_bound(order):
    unbound = replace(order, limits=replace(order.limits, attended=None))
    in_order = [row for batch in steps(order, 1) for row, _, _ in batch]
    distinct = list(dict.fromkeys(in_order))
    assert distinct == [row for batch in steps(unbound, 1) for row, _, _ in batch]
    assert sorted(in_order) == sorted(distinct) or len(in_order) > len(distinct)


@settings(max_examples=60, deadline=None)
@given(orders())
def test_where_no_batch_is_too_large_the_bound_changes_nothing(order):
    unbound = replace(order, limits=replace(order.limits, attended=None))
    batches = steps(unbound, 2)
    largest = max(size_of(batch, order) for batch in batches)
    wide = replace(order, limits=replace(order.limits, padded=int(largest)))
    assert steps(wide, 2) == batches


def test_a_position_outlives_a_change_of_the_batch_size():
    lengths = np.array([[3, 50], [200_000, 50], [11, 50], [90_000, 0]])
    counts = [
        BatchLimits.to_learn(requests, behaviours=None, attended=50).num_pieces(*lengths.T).tolist()
        for requests in (1, 32, 1 << 16)
    ]
    assert counts == [[1, 4, 1, 1]] * 3
    assert BatchLimits.to_score(256, attended=50).num_pieces(*lengths.T).tolist() == counts[0]


@pytest.mark.parametrize("requests", [32, 1024, 16_384])
def test_usual_requests_fill_the_batches_that_are_asked_for(requests):
    limits = BatchLimits.to_learn(requests, behaviours=None, attended=50)
    assert not limits.may_bind(candidates=40, behaviours=10_000)


def test_scores_are_made_in_batches_of_one_bound_whatever_is_asked_for():
    few, many = (BatchLimits.to_score(requests, attended=50) for requests in (256, 1 << 20))
    assert few.padded == many.padded == PADDED
    assert not few.may_bind(candidates=100, behaviours=1000)


def test_cutting_takes_no_look_at_single_requests(monkeypatch):
    """A million requests: once a batch at most, once a window where nothing can be too much."""
    calls = []
    real = BatchLimits.padded_size
    counted = lambda self, *sizes: calls.append(1) or real(self, *sizes)  # noqa: E731
    monkeypatch.setattr(batch_limits.BatchLimits, "padded_size", counted)
    lengths = np.full((1_000_000, 2), (11, 50), np.int32)
    sizes = np.full(100, 10_000)
    EpochOrder(sizes, lengths, BatchLimits.to_learn(1000, behaviours=None, attended=50), 0).ends(0)
    assert len(calls) <= 7
    lengths[7] = 5000, 50
    limits = BatchLimits.to_learn(1000, behaviours=None, attended=50)
    steps = EpochOrder(sizes, lengths, limits, 0).ends(0)
    assert 1000 < len(steps) < 1100 and len(calls) <= len(steps) + 2 * 7
