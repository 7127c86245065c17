"""The general search of a batch: which behaviours it goes over, and what each number is of."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.encode.arrays import InMemory, arrays_of, items_of, jagged32
from torchrec_mm.data.stream import loader
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.data.stream.search import GeneralSearch, SearchHits
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

# Items 0 to 4 have a vector, at rows 4 to 0; items 5 and 6 have none.
VECTORS = [[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, -3.0], [3.0, 4.0]]
ITEMS = items_of([50, 40, 30, 20, 10, 60, 5], item_id=[2, 3, 4, 5, 6, 7, 8])
# With max_behaviours = 3, the newest of request 0 are 5, 1, 2.
ARRAYS = arrays_of(behaviours=[[0, 0, 5, 1, 2], [], [6, 3]], candidates=[[4, 6], [1], [2, 5, 0]])
SEARCHED = {
    "all": [[0, 0, 5, 1, 2], [], [6, 3]],
    "newest": [[5, 1, 2], [], [6, 3]],
    "known": [[1, 2], [], [3]],
}


def cosine(one: int, other: int) -> float:
    """By definition; 0 where either item has no vector."""
    if max(one, other) >= len(VECTORS):
        return 0.0
    a, b = VECTORS[one], VECTORS[other]
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def pairs_of(candidates: list[list[int]], behaviours: list[list[int]]) -> list[float]:
    """Request after request, candidate after candidate, oldest behaviour first."""
    return [
        cosine(candidate, behaviour)
        for asked, searched in zip(candidates, behaviours, strict=True)
        for candidate in asked
        for behaviour in searched
    ]


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> GeneralSearch:
    folder = tmp_path_factory.mktemp("vectors") / "vectors"
    ids = ITEMS.item_ids[: len(VECTORS)]
    write_item_vectors(folder, ids, np.array(VECTORS), dtype="float32", encoder="e", modality="m")
    vectors = MappedVectors(ItemVectors.open(folder))
    rows = vectors.rows(ITEMS.item_ids).astype(np.int32)
    return GeneralSearch(fetch=vectors.fetch, vector_rows=rows, scope="all", pairs=True)


def collator_of(search: GeneralSearch, **changed) -> Collator:
    return Collator(ITEMS, True, (), 3, vector_rows=search.vector_rows, search=search, **changed)


@pytest.mark.parametrize("scope", SEARCHED)
def test_the_cosine_of_each_pair_of_the_scope_stands_in_its_place(scope, search):
    batch = collator_of(replace(search, scope=scope))(ARRAYS, 1.0)
    expected = pairs_of([[4, 6], [1], [2, 5, 0]], SEARCHED[scope])
    assert batch.search.cosine.tolist() == pytest.approx(expected, abs=1e-6)
    assert batch.search.cosine.dtype == torch.float32
    # What is attended to is the same, whatever is searched.
    assert batch.behaviour_offsets.tolist() == [0, 3, 3, 5]


def test_pairs_of_the_newest_are_those_of_impressions_and_attended_behaviours(search):
    batch = collator_of(replace(search, scope="newest"))(ARRAYS, 1.0)
    at_slot = batch.item_ids.values()[batch.item_index[0].long()]
    number = {row: item for item, row in enumerate(ITEMS.rows[0].tolist())}
    candidates, behaviours = (
        [
            [number[row] for row in at_slot[slots[start:stop]].tolist()]
            for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
        ]
        for slots, offsets in (
            (batch.candidates, batch.candidate_offsets),
            (batch.behaviours, batch.behaviour_offsets),
        )
    )
    expected = pairs_of(candidates, behaviours)
    assert batch.search.cosine.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scope", SEARCHED)
def test_tiers_and_kept_behaviours_are_those_of_the_scope(scope, search):
    asking = replace(search, scope=scope, kept=9, num_tiers=4)
    found = collator_of(asking)(ARRAYS, 1.0).search
    known = [sum(item < len(VECTORS) for item in items) for items in SEARCHED[scope]]
    # Impressions 6 and 5 have no vector.
    lengths = [known[0], 0, known[1], known[2], 0, known[2]]
    assert found.kept_length.tolist() == lengths
    assert found.tiers.sum(dim=1).tolist() == lengths


lists = st.lists(st.integers(0, 6), max_size=4)


@given(st.lists(st.tuples(lists, lists), min_size=1, max_size=5))
def test_hits_are_aligned_with_the_lists_whatever_these_are(search, requests):
    candidates, behaviours = ([list(one) for one in side] for side in zip(*requests, strict=True))
    found = replace(search, kept=2, num_tiers=4)(jagged32(candidates), jagged32(behaviours))
    assert isinstance(found, SearchHits)
    expected = pairs_of(candidates, behaviours)
    assert found.cosine.tolist() == pytest.approx(expected, abs=1e-6)
    rows = search.vector_rows
    for side, searched in ((found.candidate_rows, candidates), (found.behaviour_rows, behaviours)):
        assert side.values.tolist() == [int(rows[item]) for one in searched for item in one]
        assert side.lengths.tolist() == [len(one) for one in searched]
    impressions = [
        (candidate, past)
        for asked, past in zip(candidates, behaviours, strict=True)
        for candidate in asked
    ]
    for place, (candidate, past) in enumerate(impressions):
        alike = sorted((cosine(candidate, item), at) for at, item in enumerate(past) if item < 5)
        best = [past[at] for _, at in alike[::-1][:2]] if candidate < 5 else []
        kept = found.kept_items[place].tolist()
        assert found.kept_length[place] == len(best)
        of_kept = [cosine(candidate, item) for item in kept[: len(best)]]
        assert of_kept == pytest.approx([cosine(candidate, item) for item in best])
        assert kept[len(best) :] == [candidate] * (2 - len(best))


def test_what_is_not_asked_for_is_empty(search):
    candidates, behaviours = jagged32([[0, 1]]), jagged32([[2]])
    found = replace(search, pairs=False)(candidates, behaviours)
    assert found.kept_items.shape == (2, 0) and found.kept_cosine.shape == (2, 0)
    assert found.tiers.shape == (2, 0) and found.cosine.shape == (0,)


@pytest.mark.parametrize("scope", SEARCHED)
@pytest.mark.parametrize("pairs", [False, True])
def test_batches_that_are_compared_together_are_those_compared_one_by_one(
    scope, pairs, search, monkeypatch
):
    lists = ([[0, 4], [], [2, 5, 1], [3]], [[4, 6], [1], [2, 5, 0], [0]])
    behaviours, candidates = (one * 5 for one in lists)
    data = InMemory(arrays_of(behaviours, candidates), ITEMS, 7, [])
    asking = replace(search, scope=scope, kept=2, num_tiers=4, pairs=pairs)

    def epoch(at_once: int) -> list[RequestBatch]:
        monkeypatch.setattr(loader, "AT_ONCE", at_once)
        # Of three ranks with two requests a batch, one has none, and masks what it gets.
        return [
            batch
            for rank in range(3)
            for batch in RequestLoader(
                data,
                collator_of(asking, make=made_of),
                BatchLimits(requests=2),
                rank=rank,
                world_size=3,
                shuffle_seed=0,
            ).epoch(0)
        ]

    def made_of(hits: SearchHits, ends: Sequence[int], requests: np.ndarray) -> list[torch.Tensor]:
        rows = torch.from_numpy(hits.candidate_rows.values)
        made = torch.stack([hits.tiers.sum(1), rows], 1)
        return [made[begin:end] for begin, end in pairwise(ends)]

    alone, together = epoch(1), epoch(1000)
    assert len(alone) == 30 and any(len(batch.labels) == 0 for batch in alone)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.made, other.made)
        for field in fields(one.search):
            ours, theirs = getattr(one.search, field.name), getattr(other.search, field.name)
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("chosen", [[0, 2], [1], [], [0, 1, 2]])
@pytest.mark.parametrize("pairs", [False, True])
def test_hits_of_some_requests_are_those_of_a_search_for_them_alone(pairs, chosen, search):
    search = replace(search, kept=2, num_tiers=4, pairs=pairs, further_pairs=pairs)
    carts, rows = jagged32([[3], [0, 2], []]), np.array(chosen, dtype=np.int64)
    lists = (ARRAYS.candidates, ARRAYS.behaviours, carts)
    found, places = search(*lists[:2], [carts]).of_requests(rows)
    alone = search(*(of.take(rows)[0] for of in lists[:2]), [carts.take(rows)[0]])
    owners = ARRAYS.candidates.owners()
    assert places.tolist() == np.flatnonzero(np.isin(owners, chosen)).tolist()
    for hits in ((found, alone), (found.further[0], alone.further[0])):
        ours, theirs = (vars(h).values() if isinstance(h, SearchHits) else h for h in hits)
        for mine, wanted in zip(ours, theirs, strict=True):
            if isinstance(mine, tuple):
                continue
            mine, wanted = (
                np.concatenate([v.values, v.offsets]) if hasattr(v, "offsets") else np.asarray(v)
                for v in (mine, wanted)
            )
            assert np.array_equal(mine, wanted)
