"""Batches: each request once, cut alike for any number of ranks, every index checked by id."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.encoded import catalogue_of, requests_of
from torchrec_mm.data.encoding import EncodedRequests, encode_requests
from torchrec_mm.data.loader import RequestLoader, make_batch, one_id_bags, pad
from torchrec_mm.data.vocabulary import build_vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

WHERE = Path("market/requests/train")


def plain(num_requests: int) -> EncodedRequests:
    """Request r has r % 4 + 1 candidates and r % 3 behaviours."""
    requests = requests_of(
        [list(range(r % 3)) for r in range(num_requests)],
        [list(range(r % 4 + 1)) for r in range(num_requests)],
    )
    return encode_requests(requests, catalogue_of([0, 1, 2, 3]), WHERE)


def global_batches(data, batch_requests, world_size, seed=None, epoch=0) -> list[list[list[int]]]:
    """Request rows by step and rank."""
    shares = [
        [
            batch.rows.tolist()
            for batch in RequestLoader(
                data, batch_requests, rank=rank, world_size=world_size, shuffle_seed=seed
            ).epoch(epoch)
        ]
        for rank in range(world_size)
    ]
    return [list(step) for step in zip(*shares, strict=True)]


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 40), st.integers(3, 20), st.integers(1, 3), st.sampled_from([None, 0, 7]))
def test_every_request_is_seen_exactly_once_an_epoch(count, batch_requests, world_size, seed):
    steps = global_batches(plain(count), batch_requests, world_size, seed)
    seen = [row for step in steps for share in step for row in share]
    assert sorted(seen) == list(range(count))
    assert all(share for step in steps for share in step)


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    data = plain(23)
    alone, two, three = (global_batches(data, 6, ranks, seed=3) for ranks in (1, 2, 3))
    joined = [[sum(step, []) for step in steps] for steps in (alone, two, three)]
    assert joined[0] == joined[1] == joined[2]


def test_global_batches_differ_by_one_request_at_most_and_never_pass_the_limit():
    sizes = [len(rows) for (rows,) in global_batches(plain(23), 6, 1)]
    assert sizes == [6, 6, 6, 5]
    assert len(RequestLoader(plain(23), 6)) == 4


def test_without_a_seed_requests_keep_their_order_on_disk():
    rows = [row for (share,) in global_batches(plain(10), 4, 1) for row in share]
    assert rows == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone():
    data = plain(30)
    first = global_batches(data, 8, 1, seed=3, epoch=1)
    assert first == global_batches(data, 8, 1, seed=3, epoch=1)
    assert first != global_batches(data, 8, 1, seed=4, epoch=1)
    assert first != global_batches(data, 8, 1, seed=3, epoch=2)
    loader = RequestLoader(data, 8, shuffle_seed=3)
    list(loader.epoch(0))
    assert [[batch.rows.tolist()] for batch in loader.epoch(1)] == first


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_loss_weights_make_the_mean_over_ranks_a_mean_over_impressions(world_size):
    data = plain(11)
    loaders = [
        RequestLoader(data, 4, rank=rank, world_size=world_size).epoch(0)
        for rank in range(world_size)
    ]
    for step in zip(*loaders, strict=True):
        impressions = sum(int(batch.candidate_mask.sum()) for batch in step)
        per_impression = sum(float(b.candidate_mask.sum() * b.loss_weight) for b in step)
        assert per_impression / world_size == pytest.approx(1)
        assert float(step[0].loss_weight) == pytest.approx(world_size / impressions)


@pytest.mark.parametrize(
    ("count", "batch_requests", "words"),
    [
        (10, 1, "batch_requests must be at least the number of ranks, 2, got 1"),
        (1, 8, "requests must be at least 2, one a rank, got 1"),
    ],
)
def test_a_rank_without_a_request_is_refused(count, batch_requests, words):
    with pytest.raises(InputError, match=words):
        RequestLoader(plain(count), batch_requests, world_size=2)


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> EncodedRequests:
    """Three requests: attributes, an unknown behaviour, an empty history, no vector for 40."""
    items = catalogue_of([10, 20, 30, 40], shop=[1, 2, 2, 3])
    requests = requests_of(
        behaviours=[[20, 77, 20], [], [30]],
        candidates=[[40, 10], [30], [10, 20, 40]],
        labels=[1, 0, 1, 0, 0, 1],
        user_ids=[8, 9, 7],
        behaviour_attributes={"stars": [5, 1, 5, 3]},
    )
    folder = tmp_path_factory.mktemp("vectors") / "vectors"
    ids = np.array([10, 20, 30])
    write_item_vectors(folder, ids, np.eye(3), dtype="int8", encoder="scl", modality="image")
    vocabularies = build_vocabularies(requests, items, min_count=1)
    return encode_requests(requests, items, WHERE, vocabularies, ItemVectors.open(folder))


def features_by_slot(features, name) -> list[list[int]]:
    """The bags of one feature, one a slot."""
    jagged = features[name]
    ends = jagged.lengths().cumsum(0).tolist()
    assert ends[-1] == len(jagged.values())
    starts = [0, *ends[:-1]]
    return [jagged.values()[a:b].tolist() for a, b in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
def test_a_batch_holds_each_requests_lists_and_nothing_else(rich, rows):
    batch = make_batch(rich, np.array(rows), 1.0)
    slots = features_by_slot(batch.item_features, "item_id")
    shops = features_by_slot(batch.item_features, "shop")
    stars = features_by_slot(batch.item_features, "stars")
    users = features_by_slot(batch.request_features, "user_id")
    item_row = rich.item_rows["item_id"]
    for place, row in enumerate(rows):
        candidates = slice(*rich.candidates.offsets[row : row + 2])
        behaviours = slice(*rich.behaviours.offsets[row : row + 2])
        mask = batch.candidate_mask[place]
        slot = batch.candidate_index[place][mask].tolist()
        items = rich.candidates.values[candidates]
        assert [slots[s] for s in slot] == [[r] for r in item_row[items].tolist()]
        assert [shops[s] for s in slot] == [[r] for r in rich.item_rows["shop"][items].tolist()]
        assert batch.labels[place][mask].tolist() == rich.requests.labels[candidates].tolist()
        mask = batch.behaviour_mask[place]
        slot = batch.behaviour_index[place][mask].tolist()
        items = rich.behaviours.values[behaviours]
        assert [slots[s] for s in slot] == [[r] for r in item_row[items].tolist()]
        star = batch.behaviour_attribute_index[0, place][mask].tolist()
        assert [stars[s] for s in star] == [
            [r] for r in rich.behaviour_rows["stars"][behaviours].tolist()
        ]
        assert users[place] == [rich.request_rows["user_id"][row]]
    assert batch.rows.tolist() == rows


def test_an_item_is_looked_up_once_a_batch_however_often_it_occurs(rich):
    batch = make_batch(rich, np.arange(3), 1.0)
    rows = [bag for bag in features_by_slot(batch.item_features, "item_id") if bag]
    assert len(rows) == 5  # 10, 20, 30, 40, 77
    assert len({row for (row,) in rows}) == 5


def test_vectors_come_by_slot_with_zeros_where_there_is_none(rich):
    batch = make_batch(rich, np.array([0]), 1.0)
    slots = batch.candidate_index[0].tolist() + batch.behaviour_index[0].tolist()
    known = [bool(batch.vector_mask[slot]) for slot in slots]
    assert known == [False, True, True, False, True]  # 40, 10, 20, 77, 20
    assert batch.vectors.dtype == torch.int8
    assert batch.vectors[slots].tolist() == [
        [0, 0, 0],
        [127, 0, 0],
        [0, 127, 0],
        [0, 0, 0],
        [0, 127, 0],
    ]


def test_a_batch_without_a_single_behaviour_has_one_column_of_padding(rich):
    batch = make_batch(rich, np.array([1]), 1.0)
    assert batch.behaviour_mask.tolist() == [[False]]
    assert batch.behaviour_attribute_index.tolist() == [[[0]]]


def test_a_batch_moves_with_all_its_parts(rich):
    batch = make_batch(rich, np.arange(3), 1.0)
    moved = batch.to(torch.device("meta"))
    for field in fields(moved):
        part = getattr(moved, field.name)
        values = part.values() if hasattr(part, "keys") else part
        assert values.device.type == "meta", field.name


def test_bags_hold_one_id_and_shorter_features_end_in_empty_bags():
    bags = one_id_bags({"a": np.array([4, 5, 6]), "b": np.array([7])})
    assert features_by_slot(bags, "a") == [[4], [5], [6]]
    assert features_by_slot(bags, "b") == [[7], [], []]
    assert bags.stride() == 3
    assert one_id_bags({}) is None


def test_padding_is_zero_and_false():
    padded, mask = pad(np.array([1, 2, 3]), np.array([2, 0, 1]))
    assert padded.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert pad(np.array([], dtype=np.int64), np.array([0, 0]))[0].shape == (2, 1)
