"""Point-in-time behaviours against a plain-Python oracle."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.data.prepare.behaviours import behaviours_before

USERS, SECONDS = st.integers(-2, 2), st.integers(-3, 3)
CLICKS = st.lists(st.tuples(USERS, SECONDS, st.integers(0, 99)), max_size=25)
REQUESTS = st.lists(st.tuples(USERS, SECONDS), max_size=12)


def columns(rows, width):
    return np.array(rows, dtype=np.int64).reshape(-1, width).T


def oracle(clicks, requests, limit):
    """In words: the user's clicks earlier than the request, by time, the last ``limit``."""
    lists = []
    for user, time in requests:
        mine = [click for click in clicks if click[0] == user and click[1] < time]
        mine.sort(key=lambda click: click[1])
        lists.append([item for _, _, item in mine][-limit:])
    return lists


@given(CLICKS, REQUESTS, st.integers(1, 4))
def test_behaviours_are_the_users_last_clicks_strictly_before_the_request(clicks, requests, limit):
    found = behaviours_before(*columns(clicks, 3), *columns(requests, 2), limit)
    assert found.to_pylist() == oracle(clicks, requests, limit)


def test_a_click_in_the_second_of_the_request_is_not_a_behaviour():
    clicks = columns([(1, 9, 90), (1, 10, 100), (1, 11, 110)], 3)
    found = behaviours_before(*clicks, *columns([(1, 10)], 2), 5)
    assert found.to_pylist() == [[90]]
