"""Rows that occur more than once, against a plain-Python oracle."""

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.data.prepare import repeated_rows
from torchrec_mm.data.prepare.repeated_rows import first_of_equal, list_hashes

FEW = st.integers(-1, 1)
LISTS = st.lists(FEW, max_size=3)


def jagged(lists):
    values = np.array([value for one in lists for value in one], np.int64)
    return Jagged(values, offsets_of(np.array([len(one) for one in lists], np.int64)))


def firsts(rows):
    return sorted({row: at for at, row in reversed(list(enumerate(rows)))}.values())


@given(st.lists(st.tuples(FEW, FEW), max_size=30))
def test_of_equal_rows_the_first_is_kept(rows):
    columns = [np.array([row[at] for row in rows], np.int64) for at in range(2)]
    assert first_of_equal(columns, None).tolist() == firsts(rows)


@given(st.lists(st.tuples(FEW, LISTS), max_size=30))
def test_lists_are_compared_whole(rows):
    columns = [np.array([row[0] for row in rows], np.int64)]
    kept = first_of_equal(columns, jagged([row[1] for row in rows]))
    assert kept.tolist() == firsts([(number, tuple(values)) for number, values in rows])


@given(st.lists(LISTS, max_size=10))
def test_lists_that_differ_are_kept_though_a_hash_may_be_the_same(lists):
    with patch.object(repeated_rows, "list_hashes", lambda _: np.zeros(len(lists))):
        kept = first_of_equal([np.zeros(len(lists))], jagged(lists))
    assert {tuple(lists[at]) for at in kept} == set(map(tuple, lists))


def test_hashes_tell_the_order_and_the_length_of_lists():
    lists = [[1, 2], [2, 1], [], [0], [0, 0], [1, 2, 0], [-(2**63), 2**63 - 1], [3]]
    assert len(set(list_hashes(jagged(lists)).tolist())) == len(lists)
