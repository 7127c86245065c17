"""Events of whole users as requests, against a plain-Python oracle."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.event_logs import RULES, by_user, requests_of_rows
from torchrec_mm.data import events as events_module
from torchrec_mm.data.event_chunks import whole_users
from torchrec_mm.data.events import EVENT_SCHEMA, SORTED_BY, EventRules, requests_of
from torchrec_mm.errors import InputError

EVENTS = st.tuples(
    st.integers(1, 3), st.integers(-1, 1), st.integers(0, 15), st.sampled_from(["view", "click"])
)
RULES_OF_ANY_KIND = st.builds(
    EventRules,
    shown_event=st.just("view"),
    clicked_event=st.just("click"),
    attribution_s=st.integers(0, 8),
    pause_s=st.integers(0, 4),
    max_candidates=st.integers(1, 5),
    behaviours=st.integers(1, 4),
    test_share=st.floats(0.05, 0.95),
)


def table_of(rows: list[tuple]) -> pa.Table:
    """Rows as an engine hands them over."""
    events = sorted((user, time, item, event == "click") for user, item, time, event in rows)
    columns = zip(*events, strict=True) if events else [[]] * len(SORTED_BY)
    return pa.table(dict(zip(SORTED_BY, map(list, columns), strict=True)), EVENT_SCHEMA)


def requests(rows: list[tuple], rules: EventRules = RULES) -> list[dict]:
    return [row for table in requests_of(table_of(rows), rules) for row in table.to_pylist()]


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=40), RULES_OF_ANY_KIND)
def test_requests_are_those_of_a_slow_reading_of_the_log(rows, rules):
    assert by_user(requests(rows, rules)) == requests_of_rows(rows, rules)


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
    assert pieces == requests(rows)


def test_requests_of_a_long_user_come_in_tables_of_bounded_size(monkeypatch):
    rows = [(1, time % 5, time, "view" if time % 2 else "click") for time in range(100)]
    whole = requests(rows)
    monkeypatch.setattr(events_module, "VALUES_A_TABLE", 21)
    tables = list(requests_of(table_of(rows), RULES))
    assert [table.num_rows for table in tables] == [7] * 7 + [1]
    assert [row for table in tables for row in table.to_pylist()] == whole


def test_a_sitting_can_be_one_request_with_the_time_of_its_first_impression():
    rows = [(1, 5, 10, "view"), (1, 6, 12, "view"), (1, 5, 11, "click"), (1, 7, 40, "view")]
    first, _ = requests(rows, EventRules("view", "click", 5, 3, 20, 3, 0.5))
    assert first["timestamp"] == 10
    assert first["candidate_item_ids"] == [5, 6]
    assert first["labels"] == [1, 0]
    assert first["behaviour_item_ids"] == []  # the click came during the sitting


def test_a_click_counts_for_the_latest_impression_before_it():
    rows = [(1, 5, 10, "view"), (1, 5, 11, "view"), (1, 5, 11, "click"), (1, 5, 12, "view")]
    assert [row["labels"] for row in requests(rows)] == [[0], [1], [0]]


def test_events_of_one_second_are_in_the_order_of_their_item_ids():
    rows = [(1, 9, 10, "click"), (1, 7, 10, "click"), (1, 8, 11, "view"), (1, 3, 11, "view")]
    (request,) = requests(rows)
    assert request["behaviour_item_ids"] == [7, 9]
    assert request["candidate_item_ids"] == [3, 8]


def test_one_event_cannot_be_both_impression_and_click():
    with pytest.raises(InputError, match="clicked_event must differ from shown_event, got view"):
        EventRules("view", "view", 5, 3, 20, 3, 0.5)
