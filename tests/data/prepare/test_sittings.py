"""Cutting rows into requests and test rows, against plain-Python oracles."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.data.prepare.sittings import cut_sittings, latest_rows, request_table

ROWS = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(0, 12), st.booleans()), min_size=1, max_size=30
).map(sorted)


def columns(rows):
    user, time, is_test = zip(*rows, strict=True)
    return np.array(user), np.array(time), np.array(is_test)


def cut_oracle(rows, pause_s, max_candidates):
    begins, size = [], 0
    for place, (user, time, is_test) in enumerate(rows):
        before = rows[place - 1] if place else None
        new_sitting = before is None or before[0] != user or before[2] != is_test
        new_sitting = new_sitting or time - before[1] > pause_s
        size = 0 if new_sitting or size == max_candidates else size
        begins.append(size == 0)
        size += 1
    return begins


@given(ROWS, st.integers(0, 4), st.integers(1, 4))
def test_a_request_ends_at_a_pause_a_new_user_the_cut_and_when_full(rows, pause_s, max_candidates):
    begins = cut_sittings(*columns(rows), pause_s=pause_s, max_candidates=max_candidates)
    assert begins.tolist() == cut_oracle(rows, pause_s, max_candidates)


@given(ROWS, st.sampled_from([0.2, 0.5, 0.9]))
def test_all_training_rows_of_a_user_are_earlier_than_the_same_users_test_rows(rows, test_share):
    user, time, _ = columns(rows)
    is_test = latest_rows(user, time, test_share)
    for one in set(user.tolist()):
        times = time[user == one]
        num_train = max(1, math.ceil(len(times) * (1 - test_share) - 1e-9))
        expected = times > times[num_train - 1]
        assert is_test[user == one].tolist() == expected.tolist()


@pytest.mark.parametrize("tests", range(1, 10))
def test_of_ten_rows_as_many_tenths_as_wanted_are_for_testing(tests):
    """Also where 10 * (1 - 0.7) is a little more than 3."""
    is_test = latest_rows(np.zeros(10, dtype=np.int64), np.arange(10), tests / 10)
    assert is_test.tolist() == [False] * (10 - tests) + [True] * tests


def test_a_request_has_the_time_and_features_of_its_first_row():
    table = request_table(
        begins=np.array([True, False, True]),
        user=np.array([7, 7, -8]),
        time=np.array([1, 2, 3]),
        item=np.array([10, 11, 12]),
        label=np.array([True, False, True]),
        behaviours=pa.array([[1], []], pa.list_(pa.int64())),
        features={"city": np.array([4, 4, 5])},
    )
    assert table.to_pylist() == [
        {
            "user_id": 7,
            "timestamp": 1,
            "behaviour_item_ids": [1],
            "candidate_item_ids": [10, 11],
            "labels": [1, 0],
            "city": 4,
        },
        {
            "user_id": -8,
            "timestamp": 3,
            "behaviour_item_ids": [],
            "candidate_item_ids": [12],
            "labels": [1],
            "city": 5,
        },
    ]
