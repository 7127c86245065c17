"""A reader: the vectors of one moment, and of the next when it is told to refresh."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.live import OTHER, SPACE, Event, changes, new_index
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import add_space, open_log
from torchrec_mm.item_vectors.live.publish import publish
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.item_vectors.store import ItemVectors


def seen(vectors: ItemVectors, *items: int) -> list[int | None]:
    """What the vector of each is filled with, None for no vector."""
    values, mask = vectors.lookup(np.array(items))
    return [int(v[0]) if m else None for v, m in zip(values, mask, strict=True)]


def write(log, *events: Event) -> None:
    log.write(changes(*events), SPACE.origin)


@pytest.fixture
def index(tmp_path):
    """Items 1 to 3 published, 2 changed, 3 deleted and 4 new since; and its log."""
    index, log = new_index(tmp_path, (1, 1, 10), (2, 1, 20), (3, 1, 30))
    publish(index)
    write(log, (2, 2, 21), (3, 2, None), (4, 1, 40))
    return index, log


def test_an_item_is_as_its_newest_event_says_whether_published_or_not(index):
    reader = IndexReader(index[0])
    assert seen(reader.vectors, 1, 2, 3, 4, 5) == [10, 21, None, 40, None]
    assert reader.vectors.num_items == 3


def test_look_ups_of_a_live_index_mean_what_those_of_item_vectors_do(index):
    vectors = IndexReader(index[0]).vectors
    rows = vectors.rows(np.array([[1, 4], [3, 2]]))
    assert rows.tolist() == [[0, 4], [-1, 3]]  # after the three of the snapshot
    values, mask = vectors.gather(rows)
    assert mask.tolist() == [[True, True], [False, True]]
    assert values[..., 0].tolist() == [[10, 40], [0, 21]]
    assert values.dtype == np.int8
    assert vectors.coverage(np.array([1, 3, 4, 5])) == 0.5


def test_every_row_leads_into_one_array_of_values(index):
    vectors = IndexReader(index[0]).vectors
    rows = vectors.rows(np.array([1, 2, 4]))
    assert (vectors.values[rows] == vectors.gather(rows)[0]).all()
    assert len(vectors) == len(vectors.values)


def test_ids_in_no_order_are_not_taken_for_those_of_a_snapshot(index):
    with pytest.raises(TypeError, match="no item_ids in order"):
        _ = IndexReader(index[0]).vectors.item_ids


@pytest.mark.parametrize("is_live", [True, False])
def test_rows_stay_where_their_vectors_are_replaced_by_other_numbers(index, is_live):
    vectors = IndexReader(index[0]).vectors if is_live else ItemVectors.open(index[0])
    doubled = np.repeat(vectors.values, 2, axis=1).astype(np.float32) * 2
    meta = replace(vectors.meta, width=6, dtype="float32")
    other = vectors.with_values(doubled, meta)
    asked = np.array([1, 2, 3, 4])
    values, mask = vectors.lookup(asked)
    changed, there = other.lookup(asked)
    assert (changed[:, :3] == 2 * values.astype(np.float32)).all()
    assert changed.shape == (4, 6)
    assert there.tolist() == mask.tolist()
    assert (other.width, len(other)) == (6, len(vectors))


def test_a_moment_stays_as_it_is_until_the_reader_is_told_to_refresh(index):
    folder, log = index
    reader = IndexReader(folder)
    before = reader.vectors
    write(log, (1, 2, 11), (4, 2, None), (5, 1, 50))
    publish(folder)
    assert seen(reader.vectors, 1, 4, 5) == [10, 40, None]
    assert reader.refresh()
    assert seen(reader.vectors, 1, 4, 5) == [11, None, 50]
    assert seen(before, 1, 4, 5) == [10, 40, None]  # its snapshot may be gone from disk


def test_nothing_new_is_nothing_to_do(index):
    reader = IndexReader(index[0])
    before = reader.vectors
    assert not reader.refresh()
    assert reader.vectors is before


def test_an_index_that_never_published_is_read_too(tmp_path):
    index, log = new_index(tmp_path)
    reader = IndexReader(index)
    assert seen(reader.vectors, 1) == [None]
    assert reader.staleness_s == float("inf")
    write(log, (1, 1, 10))
    assert reader.behind() == 1
    assert reader.refresh()
    assert seen(reader.vectors, 1, 2) == [10, None]
    assert (reader.behind(), reader.version) == (0, 0)
    assert 0 <= reader.staleness_s < 1e5


def test_coverage_is_of_all_ids_that_were_asked_for(index):
    reader = IndexReader(index[0])
    assert reader.counts.coverage == 1.0
    reader.vectors.lookup(np.array([1, 2, 3]))
    reader.refresh()
    reader.vectors.lookup(np.array([5]))
    assert (reader.counts.asked, reader.counts.found, reader.counts.coverage) == (4, 2, 0.5)


def test_equal_moments_have_equal_fingerprints_and_others_have_not(index):
    folder, log = index
    first, second = IndexReader(folder), IndexReader(folder)
    assert first.vectors.fingerprint == second.vectors.fingerprint
    write(log, (9, 1, 9))
    second.refresh()
    assert first.vectors.fingerprint != second.vectors.fingerprint
    publish(folder)
    first.refresh()
    assert first.vectors.fingerprint == ItemVectors.open(folder).fingerprint


def test_a_reader_of_one_origin_stays_in_its_space_when_the_index_switches(index):
    folder, log = index
    add_space(folder, OTHER)
    other = open_log(folder, OTHER.origin)
    other.write(changes((1, 1, 1), space=OTHER), OTHER.origin)
    ranker, anyone = IndexReader(folder, SPACE.origin), IndexReader(folder)
    publish(folder, space=OTHER.origin)
    write(log, (6, 1, 60))
    ranker.refresh()
    anyone.refresh()
    assert (ranker.vectors.origin, anyone.vectors.origin) == (SPACE.origin, OTHER.origin)
    assert seen(ranker.vectors, 1, 6) == [10, 60]
    assert seen(anyone.vectors, 1, 6) == [1, None]
    assert anyone.vectors.width == OTHER.width


def test_a_moment_does_not_travel_to_another_process(index):
    with pytest.raises(TypeError, match="open an IndexReader"):
        pickle.dumps(IndexReader(index[0]).vectors)


def test_a_folder_that_is_no_index_is_refused(tmp_path):
    said = re.escape(f"index must be a folder of a live index, got {tmp_path}: no current.json")
    with pytest.raises(InputError, match=said):
        IndexReader(tmp_path)


def test_a_space_that_is_not_there_is_refused(index):
    with pytest.raises(InputError, match=r"must be one that .* has, scl-text-1, got clip-image-7"):
        IndexReader(index[0], "clip-image-7")


def test_a_garbled_pointer_leaves_the_reader_with_what_it_has(index):
    reader = IndexReader(index[0])
    (index[0] / "current.json").write_text("{")
    with pytest.raises(InputError, match="must be JSON"):
        reader.refresh()
    assert seen(reader.vectors, 1, 4) == [10, 40]


STEPS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 5), st.none() | st.integers(1, 99))
    | st.sampled_from(["publish", "refresh"]),
    max_size=12,
)


@settings(max_examples=25)
@given(steps=STEPS)
def test_whenever_it_publishes_or_refreshes_a_reader_ends_with_the_newest_of_each(
    tmp_path_factory, steps
):
    index, log = new_index(tmp_path_factory.mktemp("steps"), (0, 0, 7))
    reader, newest = IndexReader(index), {0: (0, False, 7)}
    for step in steps:
        if step == "publish":
            publish(index)
        elif step == "refresh":
            reader.refresh()
        else:
            item, version, fill = step
            write(log, step)
            order = (version, fill is None)
            if item not in newest or order > newest[item][:2]:
                newest[item] = (*order, fill)
    reader.refresh()
    wanted = [newest.get(item, (0, True, None))[2] for item in range(4)]
    assert seen(reader.vectors, 0, 1, 2, 3) == wanted
    assert seen(IndexReader(index).vectors, 0, 1, 2, 3) == wanted
    assert reader.vectors.num_items == sum(fill is not None for fill in wanted)
    reader.close()
    log.close()
