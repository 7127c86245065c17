"""Which times can be seconds since 1970, and what is said of those that cannot."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.seconds import LIMIT, check_one_clock, check_seconds
from torchrec_mm.errors import InputError

UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
SECONDS = st.integers(1 - LIMIT, LIMIT - 1)
OUR_DAYS = st.integers(600_000_000, 9_000_000_000)  # 1989 to 2255


def check(times):
    check_seconds("log", "timestamp", pa.array(times, pa.int64()))


@given(st.lists(st.none() | SECONDS))
def test_times_of_any_clock_pass_as_seconds_and_so_do_none_at_all(times):
    check(times)


@given(st.lists(st.none() | SECONDS), st.data())
def test_one_time_beyond_the_limit_is_refused_among_any_others(times, data):
    beyond = st.integers(LIMIT, 2**63 - 1) | st.integers(-(2**63), -LIMIT)
    wrong = data.draw(beyond)
    times.insert(data.draw(st.integers(0, len(times))), wrong)
    with pytest.raises(InputError, match=f"log column timestamp must be seconds.*got {wrong}"):
        check(times)


@given(OUR_DAYS, st.sampled_from(sorted(UNITS)))
def test_a_time_of_our_days_in_a_smaller_unit_is_told_by_its_unit(second, unit):
    with pytest.raises(InputError, match=f"like {unit}: divide by {UNITS[unit]}$"):
        check([second * UNITS[unit]])


@pytest.mark.parametrize("digits", [202611300224, 20261130022405, 133_000_000_000_000_000, -LIMIT])
def test_a_time_of_no_known_unit_is_refused_without_a_guess(digits):
    with pytest.raises(InputError, match=f"got {digits}$"):
        check([digits])


def clock(created_at, first, last):
    check_one_clock("items", np.array(created_at, np.int64), first, last)


def test_items_may_be_older_than_the_log_and_some_younger():
    clock([], 1, 2)
    clock([1_600_000_000, 1_900_000_000], 1_700_000_000, 1_700_000_009)
    clock([-900_000_000, 30_000_000], 1_700_000_000, 1_700_000_009)  # films of 1941 and 1970
    clock([0, 5], 3, 9)


@pytest.mark.parametrize(
    ("created_at", "first", "last"),
    [
        ([1_600_000_000, 1_600_000_009], 1000, 9000),  # a clock that begins with the log
        ([19_000, 19_600], 1_700_000_000, 1_700_000_009),  # days
        ([28_000_000, 28_300_000], 1_700_000_000, 1_700_000_009),  # minutes
        ([0, 0], 1_700_000_000, 1_700_000_009),  # not known
    ],
)
def test_items_of_another_clock_than_the_log_are_refused(created_at, first, last):
    words = f"items column created_at .*got {created_at[0]} to {created_at[1]} .* {first} to {last}"
    with pytest.raises(InputError, match=words):
        clock(created_at, first, last)
