"""Batches: every index checked by table row, distinct items once."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from tests.data.encode.arrays import arrays_of, items_of, jagged32
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.search import GeneralSearch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

# Items 10, 20, 30, 40 and 77, which no catalogue knows; shops of 20 and 30 are one.
ITEMS = items_of([10, 20, 30, 40, 77], item_id=[2, 3, 4, 5, 1], shop=[2, 3, 3, 4, 0])
ARRAYS = arrays_of(
    behaviours=[[1, 4, 1], [], [2]],
    candidates=[[3, 0], [2], [0, 1, 3]],
    labels=[[1, 0], [1], [0, 0, 1]],
    request_rows={"user_id": [8, 9, 7]},
    behaviour_rows={"stars": [[5, 1, 5], [], [3]]},
)

WITH_CARTS = replace(ARRAYS, sequences={"cart": jagged32([[2], [], [0, 4]])})


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> MappedVectors:
    """Unit vectors of 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("vectors") / "vectors"
    ids = np.array([10, 20, 30])
    write_item_vectors(folder, ids, np.eye(3), dtype="int8", encoder="scl", modality="image")
    return MappedVectors(ItemVectors.open(folder))


@pytest.fixture(scope="module")
def collator(vectors) -> Collator:
    rows = vectors.rows(ITEMS.item_ids).astype(np.int32)
    return Collator(ITEMS, True, ("stars",), 50, vector_rows=rows, gather=vectors.gather)


def bags_of(features, name) -> list[list[int]]:
    """The bags of one feature."""
    jagged = features[name]
    ends = jagged.lengths().cumsum(0).tolist()
    assert ends[-1] == len(jagged.values())
    return [jagged.values()[a:b].tolist() for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def table_rows(batch, name, slots) -> list[int]:
    """The table rows that slots lead to."""
    bags = bags_of(batch.item_ids if name == "item_id" else batch.features, name)
    index = batch.item_index[ITEMS.features.index(name)]
    (rows,) = zip(*(bags[index[slot]] for slot in slots), strict=True) if len(slots) else ((),)
    return list(rows)


def part(values, offsets, place):
    """What is of one request."""
    return values[offsets[place] : offsets[place + 1]].tolist()


@pytest.mark.parametrize("chosen", [[0, 1, 2], [2, 0], [1]])
def test_a_batch_holds_each_requests_lists_and_nothing_else(collator, chosen):
    batch = collator(ARRAYS.take(np.array(chosen)), 1.0)
    stars = bags_of(batch.features, "stars")
    users = bags_of(batch.features, "user_id")
    for place, request in enumerate(chosen):
        one = ARRAYS.take(np.array([request]))
        for lists, slots, offsets in (
            (one.candidates, batch.candidates, batch.candidate_offsets),
            (one.behaviours, batch.behaviours, batch.behaviour_offsets),
        ):
            for feature, rows in zip(ITEMS.features, ITEMS.rows, strict=True):
                found = table_rows(batch, feature, part(slots, offsets, place))
                assert found == rows[lists.values].tolist()
        assert part(batch.labels, batch.candidate_offsets, place) == one.labels.tolist()
        assert set(part(batch.request, batch.candidate_offsets, place)) == {place}
        star = part(batch.behaviour_attributes[0], batch.behaviour_offsets, place)
        assert [stars[s] for s in star] == [[r] for r in one.behaviour_rows["stars"].tolist()]
        assert users[place] == one.request_rows["user_id"].tolist()
    assert batch.rows.tolist() == chosen
    assert batch.candidate_offsets[-1] == len(batch.candidates) == len(batch.labels)
    assert batch.behaviour_offsets[-1] == len(batch.behaviours)


@pytest.mark.parametrize("chosen", [[0, 1, 2], [2, 0], [1]])
def test_the_longest_lists_of_a_batch_are_known_as_numbers(collator, chosen):
    batch = collator(ARRAYS.take(np.array(chosen)), 1.0)
    longest = [int(o.diff().max()) for o in (batch.candidate_offsets, batch.behaviour_offsets)]
    assert [batch.most_candidates, batch.most_behaviours] == longest
    assert {type(batch.most_candidates), type(batch.most_behaviours)} == {int}
    lists = batch.lists
    assert lists.candidate_offsets is batch.candidate_offsets
    assert lists.behaviour_offsets is batch.behaviour_offsets
    assert [lists.most_candidates, lists.most_behaviours] == longest


@pytest.mark.parametrize("features", [("user_id",), ("item_id",), ("item_id", "user_id")])
def test_raw_ids_come_as_they_are_and_in_place_of_table_rows(features, collator):
    batch = replace(collator, raw_ids=features)(ARRAYS, 1.0)
    assert batch.raw_ids.keys() == list(features)
    if "user_id" in features:
        assert bags_of(batch.raw_ids, "user_id")[:3] == [[user] for user in ARRAYS.user_ids]
        assert "user_id" not in batch.features.keys()
    if "item_id" in features:
        bags = bags_of(batch.raw_ids, "item_id")
        found = [bags[bag] for bag in batch.item_index[0][batch.candidates].tolist()]
        assert found == [[item] for item in ITEMS.item_ids[ARRAYS.candidates.values]]
        assert batch.item_ids is None and len(bags) == 5
    assert collator(ARRAYS, 1.0).raw_ids is None


def test_a_table_row_is_looked_up_once_a_batch_however_often_it_occurs(collator):
    batch = collator(ARRAYS, 1.0)
    for feature, distinct in (("item_id", 5), ("shop", 4), ("stars", 3)):
        lookups = batch.item_ids if feature == "item_id" else batch.features
        rows = [row for bag in bags_of(lookups, feature) for row in bag]
        assert len(rows) == len(set(rows)) == distinct


def test_only_the_newest_behaviours_are_attended_to(collator):
    batch = replace(collator, max_behaviours=2)(ARRAYS, 1.0)
    assert batch.behaviour_offsets.tolist() == [0, 2, 2, 3]
    assert table_rows(batch, "item_id", batch.behaviours.tolist()) == [1, 3, 4]
    stars = bags_of(batch.features, "stars")
    assert [stars[i] for i in batch.behaviour_attributes[0].tolist()] == [[1], [5], [3]]


def test_vectors_come_by_slot_with_zeros_where_there_is_none(collator):
    batch = collator(ARRAYS.take(np.array([0])), 1.0)
    slots = batch.candidates.tolist() + batch.behaviours.tolist()
    assert batch.vector_mask[slots].tolist() == [False, True, True, False, True]
    assert batch.vectors.dtype == torch.int8
    assert batch.vectors[slots].argmax(-1)[batch.vector_mask[slots]].tolist() == [0, 1, 1]
    assert not batch.vectors[~batch.vector_mask].any()


def test_which_items_have_a_vector_is_told_where_no_vector_comes_along(collator):
    batch = replace(collator, gather=None)(ARRAYS, 1.0)
    assert batch.vectors is None
    assert torch.equal(batch.vector_mask, collator(ARRAYS, 1.0).vector_mask)
    without = replace(collator, vector_rows=None, gather=None)(ARRAYS, 1.0)
    assert without.vectors is None and without.vector_mask is None


def test_a_model_without_tables_gets_vectors_alone_and_attends_to_what_has_one(collator):
    batch = replace(collator, has_tables=False, behaviour_features=())(ARRAYS, 1.0)
    assert batch.item_ids is None and batch.features is None
    assert batch.item_index.shape == (0, 5 + len(batch.labels))
    assert len(batch.behaviour_attributes) == 0
    assert batch.vectors.shape == (5, 3)
    # 77, of which only a number is known, has no vector: it is the second of request 0.
    assert batch.behaviour_offsets.tolist() == [0, 2, 2, 3] and batch.most_behaviours == 2
    assert batch.vectors[batch.behaviours].argmax(-1).tolist() == [1, 1, 2]
    assert batch.vector_mask[batch.behaviours].all()


def test_a_batch_without_a_single_behaviour_has_none(collator):
    batch = collator(ARRAYS.take(np.array([1])), 1.0)
    assert batch.behaviour_offsets.tolist() == [0, 0] and batch.most_behaviours == 0
    assert len(batch.behaviours) == 0 and batch.behaviour_attributes.shape == (1, 0)


@pytest.fixture(scope="module")
def searching(vectors) -> Collator:
    rows = vectors.rows(ITEMS.item_ids).astype(np.int32)
    search = GeneralSearch(
        fetch=vectors.fetch, vector_rows=rows, scope="all", kept=2, num_tiers=4, pairs=True
    )
    return Collator(ITEMS, True, (), 1, vector_rows=rows, search=search)


@pytest.mark.parametrize("kind", ["collator", "searching"])
def test_a_masked_batch_has_no_impression_and_every_look_up(kind, request):
    collate = request.getfixturevalue(kind)
    batch, whole = collate(ARRAYS, 1.0, masked=True), collate(ARRAYS, 1.0)
    assert batch.candidate_offsets.tolist() == [0, 0, 0, 0] and batch.most_candidates == 0
    assert len(batch.candidates) == len(batch.request) == len(batch.labels) == 0
    assert torch.equal(batch.behaviours, whole.behaviours)
    assert batch.rows.tolist() == whole.rows.tolist()
    for ours, theirs in ((batch.item_ids, whole.item_ids), (batch.features, whole.features)):
        for name in theirs.keys():
            assert sorted(bags_of(ours, name)) == sorted(bags_of(theirs, name))
    if batch.search is not None:
        assert batch.search.kept_index.shape == (0, 2) and batch.search.tiers.shape == (0, 4)
        assert len(batch.search.cosine) == 0


def test_a_masked_batch_without_a_behaviour_looks_up_its_candidates(searching):
    batch = searching(ARRAYS.take(np.array([1])), 1.0, masked=True)
    assert bags_of(batch.item_ids, "item_id") == [[4]]
    assert len(batch.candidates) == len(batch.behaviours) == 0


def test_kept_behaviours_are_looked_up_though_they_are_not_attended_to(searching):
    batch = searching(ARRAYS, 1.0)
    found = batch.search
    # Impressions: 40 (no vector), 10 | 30 | 10, 20, 40; behaviours with vectors: 20, 20 | | 30.
    assert found.kept_length.tolist() == [0, 2, 0, 1, 1, 0]
    assert found.tiers.sum(-1).tolist() == [0, 2, 0, 1, 1, 0]
    assert found.tiers[1].tolist() == [0, 0, 2, 0]  # cosine 0 is in [0, .5)
    assert table_rows(batch, "item_id", found.kept_index[1].tolist()) == [3, 3]
    assert table_rows(batch, "item_id", found.kept_index[3, :1].tolist()) == [4]
    assert batch.vectors is None


def test_where_nothing_is_kept_the_candidate_stands_so_that_nothing_else_is_looked_up(searching):
    batch = searching(ARRAYS, 1.0)
    kept = [table_rows(batch, "item_id", slots.tolist()) for slots in batch.search.kept_index]
    assert [rows[1] for rows in kept] == [5, 3, 4, 2, 3, 5]
    nobody = searching(ARRAYS.take(np.array([1])), 1.0)
    assert table_rows(nobody, "item_id", nobody.search.kept_index[0].tolist()) == [4, 4]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"kept": 2, "num_tiers": 4}, {"kept_index", "kept_length", "kept_cosine", "tiers"}),
        ({"num_tiers": 4}, {"tiers"}),
        ({"pairs": True}, {"cosine"}),
        ({"num_tiers": 4, "pairs": True}, {"tiers", "cosine"}),
    ],
)
def test_a_batch_tells_of_a_search_what_was_asked_for(asked, told, searching):
    nothing = {"kept": 0, "num_tiers": 0, "pairs": False}
    batch = replace(searching, search=replace(searching.search, **(nothing | asked)))(ARRAYS, 1.0)
    found = {field.name: getattr(batch.search, field.name) for field in fields(batch.search)}
    assert {name for name, value in found.items() if value is not None} == told
    whole = searching(ARRAYS, 1.0).search
    assert all(torch.equal(found[name], getattr(whole, name)) for name in told - {"kept_index"})


def test_what_is_made_of_a_search_comes_in_the_place_of_its_cosines(searching):
    seen = []
    make = lambda *asked: seen.append(asked) or [torch.arange(6.0)[:, None]]  # noqa: E731
    batch = replace(searching, make=make)(ARRAYS, 1.0)
    assert batch.made.tolist() == [[0], [1], [2], [3], [4], [5]]
    assert batch.search.cosine is None and batch.search.tiers is not None
    ((hits, ends, requests),) = seen
    assert ends == [0, 6] and np.array_equal(requests, ARRAYS.rows)
    assert torch.equal(hits.cosine, searching(ARRAYS, 1.0).search.cosine)
    assert searching(ARRAYS, 1.0).made is None


def test_a_batch_moves_with_all_its_parts(searching):
    moved = replace(searching, sequences=("cart",))(WITH_CARTS, 1.0).to(torch.device("meta"))
    parts = [getattr(moved, field.name) for field in fields(moved)]
    assert len(moved.sequences) == 1
    parts.remove(moved.sequences)
    for further in (moved.search, *moved.sequences):
        parts += [getattr(further, field.name) for field in fields(further)]
    devices = {
        (part.values() if hasattr(part, "keys") else part).device.type
        for part in parts
        if part is not None and not isinstance(part, int) and part is not moved.search
    }
    assert devices == {"meta"}
    assert (moved.most_candidates, moved.most_behaviours) == (3, 1)
    assert moved.sequences[0].most == 1  # of those that it sees


def test_bags_hold_one_id_and_shorter_features_end_in_empty_bags():
    bags = one_id_bags({"a": np.array([4, 5, 6]), "b": np.array([7])})
    assert bags_of(bags, "a") == [[4], [5], [6]]
    assert bags_of(bags, "b") == [[7], [], []]
    assert bags.stride() == 3
    assert one_id_bags({}) is None
