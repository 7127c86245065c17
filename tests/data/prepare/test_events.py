"""Events of whole users as requests, against a plain-Python oracle."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.event_logs import (
    EVENTS,
    RULES,
    by_user,
    requests_of_events,
    requests_of_rows,
    table_of,
)
from torchrec_mm.data.prepare import events as events_module
from torchrec_mm.data.prepare.events import EventRules, requests_of
from torchrec_mm.errors import InputError

RULES_OF_ANY_KIND = st.builds(
    EventRules,
    shown=st.just(("view",)),
    clicked=st.just(("click",)),
    attribution_s=st.integers(0, 8),
    pause_s=st.integers(0, 4),
    max_candidates=st.integers(1, 5),
    behaviours=st.integers(1, 4),
    test_share=st.floats(0.05, 0.95),
    further=st.sampled_from([{}, {"cart": ("add",)}, {"cart": ("add",), "purchase": ("buy",)}]),
    passed=st.booleans(),
)

SHORT_PAUSES = replace(RULES, pause_s=3, test_share=0.5)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=40), RULES_OF_ANY_KIND)
def test_requests_are_those_of_a_slow_reading_of_the_log(rows, rules):
    assert by_user(requests_of_events(rows, rules)) == requests_of_rows(rows, rules)


def test_requests_of_a_long_user_come_in_tables_of_bounded_size(monkeypatch):
    rows = [(1, time % 5, time, "view" if time % 2 else "click") for time in range(100)]
    whole = requests_of_events(rows)
    monkeypatch.setattr(events_module, "VALUES_A_TABLE", 21)
    tables = list(requests_of(table_of(rows), RULES))
    assert [table.num_rows for table in tables] == [7] * 7 + [1]
    assert [row for table in tables for row in table.to_pylist()] == whole


def test_a_sitting_can_be_one_request_with_the_time_of_its_first_impression():
    rows = [(1, 5, 10, "view"), (1, 6, 12, "view"), (1, 5, 11, "click"), (1, 7, 40, "view")]
    first, _ = requests_of_events(rows, SHORT_PAUSES)
    assert first["timestamp"] == 10
    assert first["candidate_item_ids"] == [5, 6]
    assert first["labels"] == [1, 0]
    assert first["behaviour_item_ids"] == []  # the click came during the sitting


def test_a_click_counts_for_the_latest_impression_before_it():
    rows = [(1, 5, 10, "view"), (1, 5, 11, "view"), (1, 5, 11, "click"), (1, 5, 12, "view")]
    assert [row["labels"] for row in requests_of_events(rows)] == [[0], [1], [0]]


def test_events_of_one_second_are_in_the_order_of_their_item_ids():
    rows = [(1, 9, 10, "click"), (1, 7, 10, "click"), (1, 8, 11, "view"), (1, 3, 11, "view")]
    (request,) = requests_of_events(rows)
    assert request["behaviour_item_ids"] == [7, 9]
    assert request["candidate_item_ids"] == [3, 8]


def test_what_a_user_put_into_a_cart_before_a_request_is_a_sequence_of_it():
    rules = replace(RULES, further={"cart": ("add", "basket")}, behaviours=2)
    rows = [(1, 5, 9, "view"), (1, 6, 10, "add"), (1, 7, 10, "basket"), (1, 8, 11, "add")]
    rows += [(1, 5, 11, "view"), (1, 5, 12, "view"), (2, 5, 12, "view")]
    carts = [row["cart_item_ids"] for row in requests_of_events(rows, rules)]
    assert carts == [[], [6, 7], [7, 8], []]


def test_an_impression_is_passed_over_only_when_its_click_can_no_longer_come():
    rules = replace(RULES, passed=True, attribution_s=5)
    rows = [(1, 5, 10, "view"), (1, 6, 10, "view"), (1, 6, 12, "click")]
    rows += [(1, 9, time, "view") for time in (13, 15, 16)]
    passed = [row["passed_item_ids"] for row in requests_of_events(rows, rules)]
    assert passed == [[], [], [], [5]]


def test_a_kind_of_event_is_of_one_sequence_and_that_has_a_name_of_its_own():
    with pytest.raises(InputError, match="one kind for both click and cart, got click"):
        replace(RULES, further={"cart": ("click",)})
    with pytest.raises(InputError, match="must name a kind of events for cart, got none"):
        replace(RULES, further={"cart": ()})
    for name, passed in (("behaviour", False), ("candidate_1", False), ("passed", True)):
        with pytest.raises(InputError, match=f"got {name}: it would be {name}_item_ids"):
            replace(RULES, further={name: ("add",)}, passed=passed)
    assert replace(RULES, further={"passed": ("skip",)}).sequences == ["passed_item_ids"]


def test_one_event_cannot_be_both_impression_and_click():
    with pytest.raises(InputError, match="events must not take one kind for both .*, got view"):
        replace(SHORT_PAUSES, clicked=("click", "view"))
    with pytest.raises(InputError, match="must name a kind of events for click, got none"):
        replace(SHORT_PAUSES, clicked=())
