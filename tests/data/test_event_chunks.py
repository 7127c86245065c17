"""A sorted stream of events, cut between users."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.event_logs import EVENTS, RULES, requests_of_events, table_of
from torchrec_mm.data.event_chunks import whole_users
from torchrec_mm.data.events import requests_of


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.integers(1, 8), st.integers(1, 20))
def test_neither_chunks_nor_batches_change_the_requests(rows, batch_rows, least_rows):
    events = table_of(rows)
    chunks = list(whole_users(events.to_batches(max_chunksize=batch_rows), least_rows))
    users = [set(chunk["user_id"].to_pylist()) for chunk in chunks]
    assert sum(map(len, users)) == len(set().union(*users)), "a user lies in one chunk"
    assert all(
        chunk.num_rows < least_rows + batch_rows or len(u) == 1
        for chunk, u in zip(chunks, users, strict=True)
    )
    pieces = [row for chunk in chunks for t in requests_of(chunk, RULES) for row in t.to_pylist()]
    assert pieces == requests_of_events(rows)
