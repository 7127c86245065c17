"""Arbitrary 64-bit ids to rows, against a dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex, as_ids, sort_unique

INT64 = st.integers(-(2**63), 2**63 - 1)


def int64(values) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(known=st.lists(INT64, unique=True), asked=st.lists(INT64))
def test_every_id_gets_the_row_a_dictionary_would_give(known, asked):
    row_of = {item: row for row, item in enumerate(sorted(known))}
    asked = asked + known
    rows = IdIndex(int64(sorted(known))).rows(int64(asked))
    assert rows.tolist() == [row_of.get(item, -1) for item in asked]


def test_the_answer_has_the_shape_of_the_question():
    index = IdIndex(int64([-5, 0, 9]))
    assert index.rows(int64([[9, 1], [-5, 0]])).tolist() == [[2, -1], [0, 1]]
    assert index.rows(int64([])).shape == (0,)
    assert index.rows(np.int64(9)) == 2


def test_an_index_without_ids_knows_none():
    index = IdIndex(int64([]))
    assert len(index) == 0
    assert index.rows(int64([[1, 2]])).tolist() == [[-1, -1]]


def test_the_largest_and_smallest_ids_are_ids_like_any_other():
    ends = [-(2**63), 2**63 - 1]
    assert IdIndex(int64(ends)).rows(int64(ends + [0])).tolist() == [0, 1, -1]


def test_sort_unique_gives_the_order_that_sorts():
    ids = int64([4, -2, 7])
    assert ids[sort_unique(ids, "item_id")].tolist() == [-2, 4, 7]


def test_a_repeated_id_is_refused_by_column_and_value():
    with pytest.raises(InputError, match="items column item_id must be unique, got 4 more than"):
        sort_unique(int64([4, 1, 4]), "items column item_id")


@pytest.mark.parametrize("ids", [[], [5, -3], [[2**63 - 1]], np.array([7], np.uint64)], ids=repr)
def test_whole_numbers_that_int64_holds_are_ids(ids):
    taken = as_ids(ids, "item_ids")
    assert taken.dtype == np.int64 and taken.tolist() == np.array(ids).tolist()


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        ([1.0, float("nan")], "float64"),
        ([True], "bool"),
        (["12"], "<U2"),
        ([None, 3], "object"),
        (np.array([2**63 + 5], np.uint64), "9223372036854775813"),
    ],
)
def test_whatever_would_become_another_id_is_refused(ids, got):
    with pytest.raises(InputError, match=f"item_ids must be int64, got {got}"):
        as_ids(ids, "item_ids")
