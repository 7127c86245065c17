"""Requests too long for a batch: read in pieces, each impression once, alike for all ranks."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.encode.arrays import InMemory, arrays_of, items_of
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.loader import RequestLoader

ITEMS = items_of([10, 20, 30, 40, 50], item_id=[2, 3, 4, 5, 1])
COLLATOR = Collator(ITEMS, True, (), 2)
LIMITS = BatchLimits(requests=6, attended=2, padded=900)


def mixed(seed: int, requests: int = 12) -> InMemory:
    """Every fourth request has dozens of candidates."""
    rng = np.random.default_rng(seed)
    counts = [rng.integers(1, 90 if r % 4 == 3 else 5) for r in range(requests)]
    candidates = [rng.integers(0, 5, count).tolist() for count in counts]
    behaviours = [rng.integers(0, 5, rng.integers(0, 5)).tolist() for _ in range(requests)]
    users = {"user_id": list(range(2, 2 + requests))}
    return InMemory(arrays_of(behaviours, candidates, request_rows=users), ITEMS, 5, [])


def batches_of(data, rank=0, world_size=1, seed=0, done=0) -> list:
    place = {"rank": rank, "world_size": world_size}
    loader = RequestLoader(data, COLLATOR, LIMITS, **place, shuffle_seed=seed)
    return list(loader.epoch(0, done=done))


def impressions(batch) -> list[tuple[int, int, float]]:
    """Request, slot's table row and label of each impression."""
    row_of_slot = batch.item_ids["item_id"].values()[batch.item_index[0].long()]
    rows = batch.rows[batch.request].tolist()
    shown = row_of_slot[batch.candidates].tolist()
    return list(zip(rows, shown, batch.labels.tolist(), strict=True))


def in_order(data: InMemory) -> list[tuple[int, int, float]]:
    shown = ITEMS.rows[0][data.arrays.candidates.values].tolist()
    owners = data.arrays.candidates.owners().tolist()
    return list(zip(owners, shown, data.arrays.labels.tolist(), strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.sampled_from([None, 0]))
def test_every_impression_is_seen_once_by_one_of_the_ranks(seed, world_size, shuffle):
    data = mixed(seed)
    ranks = [batches_of(data, rank, world_size, shuffle) for rank in range(world_size)]
    seen = [i for batches in ranks for batch in batches for i in impressions(batch)]
    assert sorted(seen) == sorted(in_order(data))
    for step in zip(*ranks, strict=True):
        weights = [float(len(batch.candidates) * batch.loss_weight) for batch in step]
        assert sum(weights) / world_size == pytest.approx(1)


@pytest.mark.parametrize("shuffle", [None, 0])
def test_global_batches_do_not_depend_on_the_number_of_ranks(shuffle):
    data = mixed(1)
    alone = [sorted(impressions(batch)) for batch in batches_of(data, seed=shuffle)]
    ranks = [batches_of(data, rank, 3, shuffle) for rank in range(3)]
    together = [sorted(sum(map(impressions, step), [])) for step in zip(*ranks, strict=True)]
    assert together == alone and len(alone) > 4


def test_what_is_left_after_a_piece_begins_with_the_next_piece():
    data = mixed(1)
    whole = batches_of(data)
    loader = RequestLoader(data, COLLATOR, LIMITS, shuffle_seed=0)
    rows = [batch.rows.tolist() for batch in whole]
    (step,) = [i for i in range(1, len(rows)) if rows[i - 1] == rows[i]][:1]
    rest = batches_of(data, done=int(loader.ends(0)[step - 1]))
    assert list(map(impressions, rest)) == list(map(impressions, whole[step:]))


def test_candidates_of_a_request_keep_their_order_over_its_pieces():
    data = mixed(1)
    seen = [i for batch in batches_of(data, seed=None) for i in impressions(batch)]
    assert seen == in_order(data)


def test_the_padded_size_of_a_batch_is_bounded():
    sizes = []
    for batch in batches_of(mixed(1, requests=40)):
        longest = (batch.most_candidates + 8) * (batch.most_behaviours + 32)
        sizes.append(len(batch.rows) * longest)
    assert max(sizes) <= LIMITS.padded and max(sizes) > LIMITS.padded // 2


def test_a_piece_is_a_request_with_fewer_candidates():
    arrays = mixed(1).arrays.take(np.array([3]))
    few = arrays_of(
        [arrays.behaviours.values.tolist()],
        [arrays.candidates.values[4:9].tolist()],
        [arrays.labels[4:9].tolist()],
        {"user_id": arrays.request_rows["user_id"].tolist()},
    )
    few = replace(few, rows=arrays.rows, user_ids=arrays.user_ids)
    ours, wanted = (COLLATOR(share, 0.2) for share in (arrays.cut(4, 9), few))
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(wanted, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
        elif isinstance(one, int):
            assert one == other, field.name
        elif one is not None and one != ():
            assert one.to_dict().keys() == other.to_dict().keys()
            assert torch.equal(one.values(), other.values())
