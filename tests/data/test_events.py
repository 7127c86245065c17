"""Event logs as requests, against a plain-Python oracle."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.events import EventRules, prepare_events
from torchrec_mm.data.prepared import Prepared
from torchrec_mm.errors import InputError

RULES = EventRules(
    shown_event="view",
    clicked_event="click",
    attribution_s=5,
    pause_s=0,
    max_candidates=20,
    behaviours=3,
    test_share=0.3,
)
NAMES = ("user_id", "item_id", "timestamp", "event")
EVENTS = st.tuples(
    st.integers(1, 2), st.integers(-1, 1), st.integers(0, 15), st.sampled_from(["view", "click"])
)
ONE_OF_EACH = [(3, 0, 0, "view"), (3, 0, 0, "click"), (3, 0, 1, "basket")]


def write_log(folder, rows):
    folder.mkdir(exist_ok=True)
    columns = zip(*rows, strict=True)
    pq.write_table(
        pa.table(dict(zip(NAMES, map(list, columns), strict=True))), folder / "a.parquet"
    )
    return folder


def requests_of(prepared: Prepared) -> list[dict]:
    return prepared.train.to_pylist() + prepared.test.to_pylist()


def label_oracle(rows, user, item, time):
    """A click at or after the impression, in time, and before the next impression."""
    mine = [row for row in rows if row[:2] == (user, item)]
    clicks = [t for *_, t, event in mine if event == "click" and t >= time]
    later = [t for *_, t, event in mine if event == "view" and t > time]
    in_time = bool(clicks) and min(clicks) - time <= RULES.attribution_s
    return in_time and not (later and min(later) <= min(clicks))


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=40, unique=True))
def test_labels_and_behaviours_are_those_of_a_slow_reading_of_the_log(tmp_path_factory, events):
    rows = [*events, *ONE_OF_EACH]
    prepared = prepare_events(write_log(tmp_path_factory.mktemp("log"), rows), None, RULES)
    views = {row[:3] for row in rows if row[3] == "view"}
    for request in requests_of(prepared):
        user, time = request["user_id"], request["timestamp"]
        clicks = [
            (t, place, item)
            for place, (who, item, t, event) in enumerate(rows)
            if event == "click" and who == user and t < time
        ]
        assert request["behaviour_item_ids"] == [item for *_, item in sorted(clicks)][-3:]
        for item, label in zip(request["candidate_item_ids"], request["labels"], strict=True):
            views.remove((user, item, time))
            assert label == label_oracle(rows, user, item, time)
    assert views == set(), "every impression is a candidate once"


def test_a_sitting_can_be_one_request_with_the_time_of_its_first_impression(tmp_path):
    rows = [(1, 5, 10, "view"), (1, 6, 12, "view"), (1, 5, 11, "click"), (1, 7, 40, "view")]
    rules = EventRules("view", "click", 5, 3, 20, 3, 0.5)
    (first,) = prepare_events(write_log(tmp_path / "log", rows), None, rules).train.to_pylist()
    assert first["timestamp"] == 10
    assert first["candidate_item_ids"] == [5, 6]
    assert first["labels"] == [1, 0]
    assert first["behaviour_item_ids"] == []  # the click came during the sitting


def test_csv_logs_give_the_same_requests_as_parquet(tmp_path):
    rows = [(1, 5, 10, "view"), (1, 6, 12, "view"), (1, 5, 11, "click")]
    (tmp_path / "csv").mkdir()
    text = "\n".join(",".join(map(str, row)) for row in [NAMES, *rows])
    (tmp_path / "csv" / "log.csv").write_text(text)
    parquet = prepare_events(write_log(tmp_path / "log", rows), None, RULES)
    assert requests_of(prepare_events(tmp_path / "csv", None, RULES)) == requests_of(parquet)


def test_without_a_catalogue_items_are_the_ids_that_occur(tmp_path):
    rows = [(1, 5, 10, "view"), (1, 4, 1, "click"), (1, 9, 20, "basket")]
    prepared = prepare_events(write_log(tmp_path / "log", rows), None, RULES)
    assert prepared.items.to_pydict() == {"item_id": [4, 5]}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(1, 5, 10, "click")], "event must hold 'view' at least once, got click"),
        ([(1, 5, 10, "view")], "event must hold 'click' at least once, got view"),
        ([(1, 5, None, "view"), (1, 5, 3, "click")], "timestamp must not be null"),
    ],
)
def test_logs_that_cannot_be_used_are_refused(tmp_path, rows, complaint):
    with pytest.raises(InputError, match=complaint):
        prepare_events(write_log(tmp_path / "log", rows), None, RULES)


def test_a_candidate_missing_from_the_given_catalogue_is_refused(tmp_path):
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"item_id": [6]}), tmp_path / "items" / "a.parquet")
    log = write_log(tmp_path / "log", [(1, 5, 10, "view"), (1, 6, 1, "click")])
    with pytest.raises(InputError, match="item_id must be in .*items, got 5"):
        prepare_events(log, tmp_path, RULES)
