"""Weighted batches: on any number of ranks the mean of a global batch is a weighted mean."""

import numpy as np
import pytest

from tests.data.encode.arrays import InMemory, arrays_of, items_of
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.loader import RequestLoader

ITEMS = items_of([10, 20, 30, 40, 50], item_id=[2, 3, 4, 5, 1])
COLLATOR = Collator(ITEMS, True, (), 2)
ALL_ZERO = 3  # a request whose impressions weigh nothing


def weighted(longest: int = 5, requests: int = 12) -> InMemory:
    """Some impressions weigh nothing, and all of every fourth request."""
    rng = np.random.default_rng(0)
    counts = [rng.integers(1, longest) for _ in range(requests)]
    candidates = [rng.integers(0, 5, count).tolist() for count in counts]
    weights = [rng.choice([0.0, 0.25, 3.0], n) * (r % 4 < ALL_ZERO) for r, n in enumerate(counts)]
    users = {"user_id": list(range(2, 2 + requests))}
    arrays = arrays_of([[1]] * requests, candidates, None, users, None, np.concatenate(weights))
    return InMemory(arrays, ITEMS, 5, [])


def steps_of(data: InMemory, limits: BatchLimits, world_size: int) -> list[tuple]:
    """The batches of all ranks, step by step."""
    loaders = [
        RequestLoader(data, COLLATOR, limits, rank=rank, world_size=world_size, shuffle_seed=0)
        for rank in range(world_size)
    ]
    return list(zip(*(loader.epoch(0) for loader in loaders), strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 4])
def test_weights_of_a_global_batch_sum_to_one_or_to_nothing(most, world_size):
    steps = steps_of(weighted(), BatchLimits(requests=most), world_size)
    totals = [
        sum(float((batch.weights * batch.loss_weight).sum()) for batch in step) / world_size
        for step in steps
    ]
    whole = [sum(float(batch.weights.sum()) for batch in step) for step in steps]
    assert totals == pytest.approx([float(weight > 0) for weight in whole])
    assert (0.0 in totals) == (most == 1) and 1 in np.round(totals)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_piece_of_a_request_weighs_what_its_own_impressions_do(world_size):
    data = weighted(longest=90)
    limits = BatchLimits(requests=6, attended=2, padded=900)
    steps = steps_of(data, limits, world_size)
    pieces = [step for step in steps if sum(len(batch.candidates) for batch in step) > 12]
    assert len(pieces) > 3
    for step in steps:
        total = sum(float((batch.weights * batch.loss_weight).sum()) for batch in step)
        weight = sum(float(batch.weights.sum()) for batch in step)
        assert total / world_size == pytest.approx(float(weight > 0))
    seen = np.concatenate([batch.weights.numpy() for step in steps for batch in step])
    assert sorted(seen.tolist()) == sorted(data.arrays.weights.tolist())


def test_a_batch_that_keeps_a_rank_in_step_has_no_weights():
    steps = steps_of(weighted(), BatchLimits(requests=1), 2)
    assert {len(batch.weights) == len(batch.candidates) for s in steps for batch in s} == {True}


def test_without_weights_a_batch_has_none():
    data = InMemory(arrays_of([[1]], [[2, 3]]), ITEMS, 5, [])
    ((batch,),) = steps_of(data, BatchLimits(requests=1), 1)
    assert batch.weights is None and float(batch.loss_weight) == 0.5
