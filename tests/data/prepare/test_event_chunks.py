"""A sorted stream of events, cut between users."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.event_logs import EVENTS, RULES, requests_of_events, table_of
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.events import requests_of


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.integers(1, 8), st.integers(1, 20))
def test_neither_chunks_nor_batches_change_the_requests(rows, batch_rows, least_rows):
    events = table_of(rows)
    chunks = list(whole_users(events.to_batches(max_chunksize=batch_rows), least_rows))
    users = [set(chunk["user_id"].to_pylist()) for chunk in chunks]
    assert sum(map(len, users)) == len(set().union(*users)), "a user lies in one chunk"
    longest = max(Counter(events["user_id"].to_pylist()).values(), default=0)
    most = max(least_rows - 1, longest) + batch_rows
    assert all(0 < chunk.num_rows <= most for chunk in chunks)
    pieces = [row for chunk in chunks for t in requests_of(chunk, RULES) for row in t.to_pylist()]
    assert pieces == requests_of_events(rows)


def test_chunks_are_as_large_as_wanted_and_not_cut_before():
    events = table_of([(user, 0, 0, "view") for user in range(100)])
    chunks = list(whole_users(events.to_batches(max_chunksize=1), least_rows=10))
    # The tenth row belongs to a user who may have more.
    assert [chunk.num_rows for chunk in chunks] == [9] * 11 + [1]
