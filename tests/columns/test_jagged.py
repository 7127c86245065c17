"""Jagged lists against lists of lists."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.jagged import Jagged, ragged_positions
from torchrec_mm.errors import InputError

LISTS = st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), min_size=1, max_size=8)


def jagged(lists: list[list[int]]) -> Jagged:
    return Jagged.from_arrow(pa.chunked_array([pa.array(lists, pa.list_(pa.int64()))]), "lists")


@given(lists=LISTS, data=st.data())
def test_positions_are_those_of_the_lists_one_after_another(lists, data):
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12))
    column = jagged(lists)
    positions, lengths = column.positions(np.array(rows, dtype=np.int64))
    assert column.values[positions].tolist() == [value for row in rows for value in lists[row]]
    assert lengths.tolist() == [len(lists[row]) for row in rows]


@given(LISTS)
def test_offsets_owners_and_lengths_describe_the_lists(lists):
    column = jagged(lists)
    assert len(column) == len(lists)
    assert column.lengths.tolist() == [len(values) for values in lists]
    assert column.owners().tolist() == [row for row, values in enumerate(lists) for _ in values]
    pieces = zip(column.offsets[:-1], column.offsets[1:], strict=True)
    assert [column.values[start:stop].tolist() for start, stop in pieces] == lists


@given(chunks=st.lists(LISTS, max_size=3), skipped=st.integers(0, 3))
def test_chunks_and_slices_of_an_arrow_column_join_without_a_seam(chunks, skipped):
    kind = pa.list_(pa.int64())
    column = pa.chunked_array([pa.array(chunk, kind)[skipped:] for chunk in chunks], kind)
    joined = Jagged.from_arrow(column, "lists")
    expected = [values for chunk in chunks for values in chunk[skipped:]]
    assert joined.offsets[0] == 0
    assert joined.lengths.tolist() == [len(values) for values in expected]
    assert joined.values.tolist() == [value for values in expected for value in values]


def test_a_null_in_a_list_is_refused_by_column():
    column = pa.chunked_array([pa.array([[1], [2, None]], pa.list_(pa.int64()))])
    with pytest.raises(InputError, match="labels must not hold nulls, got 1"):
        Jagged.from_arrow(column, "labels")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=8))
def test_ragged_positions_are_the_ranges_end_to_end(slices):
    begin, lengths = np.array(slices, dtype=np.int64).reshape(-1, 2).T
    expected = [begin + step for begin, length in slices for step in range(length)]
    assert ragged_positions(begin, lengths).tolist() == expected


@given(LISTS, st.data())
def test_where_keeps_the_values_of_the_mask_each_in_its_list(lists, data):
    mask = [[data.draw(st.booleans()) for _ in values] for values in lists]
    kept = jagged(lists).where(np.array(sum(mask, []), dtype=bool))
    expected = [
        [value for value, keep in zip(*both, strict=True) if keep]
        for both in zip(lists, mask, strict=True)
    ]
    assert kept.values.tolist() == sum(expected, [])
    assert kept.lengths.tolist() == [len(values) for values in expected]
    assert (kept.offsets[0], kept.offsets.dtype) == (0, np.int64)


@given(LISTS, st.data())
def test_a_slice_holds_the_lists_that_taking_them_one_by_one_gives(lists, data):
    whole = jagged(lists)
    begin = data.draw(st.integers(0, len(lists)))
    end = data.draw(st.integers(begin, len(lists)))
    part, positions = whole.slice(begin, end)
    taken, at = whole.take(np.arange(begin, end))
    assert part.values.tolist() == taken.values.tolist() == whole.values[positions].tolist()
    assert part.offsets.tolist() == taken.offsets.tolist()
    assert list(range(len(whole.values)))[positions] == at.tolist()
