"""Pairs that share an id, against comparing all with all."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.losses.false_negatives import shared_ids, shared_mask

ID = st.integers(-1, 4)
ROWS = st.lists(st.tuples(ID, ID), max_size=12)


def pairs(own, other) -> list[tuple[int, int]]:
    own, other = (torch.tensor(ids, dtype=torch.int64).view(-1, 2) for ids in (own, other))
    rows, columns = shared_ids(own, other)
    assert columns.tolist() == sorted(columns.tolist())
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


@given(ROWS, ROWS)
def test_pairs_are_those_of_comparing_all_with_all_kind_by_kind(own, other):
    expected = [
        (i, j)
        for i, mine in enumerate(own)
        for j, theirs in enumerate(other)
        for a, b in zip(mine, theirs, strict=True)
        if a == b != -1
    ]
    assert Counter(pairs(own, other)) == Counter(expected)


@given(ROWS, ROWS, st.lists(st.tuples(st.integers(0, 11), ID), max_size=12))
def test_further_ids_are_of_the_first_kind_and_of_the_query_that_they_name(own, other, further):
    further = [(row, an_id) for row, an_id in further if row < len(own)]
    expected = [
        (row, j) for row, an_id in further for j, theirs in enumerate(other) if theirs[0] == an_id
    ]
    expected = [(row, j) for row, j in expected if other[j][0] != -1]
    own_ids, ids = (torch.tensor(rows, dtype=torch.int64).view(-1, 2) for rows in (own, other))
    besides = torch.tensor(further, dtype=torch.int64).view(-1, 2)
    found = zip(*(part.tolist() for part in shared_ids(own_ids, ids, besides)), strict=True)
    assert Counter(found) == Counter(expected) + Counter(pairs(own, other))


@given(ROWS, ROWS, st.lists(st.tuples(st.integers(0, 11), ID), max_size=12))
def test_a_mask_has_the_pairs_that_are_found_and_no_others(own, other, further):
    further = [(row, an_id) for row, an_id in further if row < len(own)]
    own_ids, ids = (torch.tensor(rows, dtype=torch.int64).view(-1, 2) for rows in (own, other))
    besides = torch.tensor(further, dtype=torch.int64).view(-1, 2)
    for more in (None, besides):
        expected = torch.zeros(len(own), len(other), dtype=torch.bool)
        expected[shared_ids(own_ids, ids, more)] = True
        assert torch.equal(shared_mask(own_ids, ids, more), expected)


def test_an_id_of_one_kind_is_never_that_of_another():
    assert pairs([(1, 2)], [(2, 1)]) == []


def test_a_missing_id_is_the_same_as_none():
    assert pairs([(-1, -1), (-1, 5)], [(-1, 5), (-1, -1)]) == [(1, 0)]


def test_ids_of_the_same_last_bits_are_not_the_same():
    assert pairs([(5, 2**16 - 1)], [(5 + 2**16, -1 - 2**16), (5, 2**40 - 1)]) == [(0, 1)]


def test_extreme_ids_are_found():
    low, high = -(2**63), 2**63 - 1
    assert pairs([(low, high)], [(low, 0), (0, high)]) == [(0, 0), (0, 1)]


def test_other_kinds_of_ids_are_refused_by_name():
    with pytest.raises(ValueError, match=r"other must be \(M, A\) = \(M, 2\).* got \(3, 1\)"):
        shared_ids(torch.zeros(4, 2), torch.zeros(3, 1))
