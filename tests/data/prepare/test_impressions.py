"""Row-per-impression data as requests."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.prepare.impressions import prepare_impressions
from torchrec_mm.errors import InputError


def write(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder


def prepare(folder, behaviours=50, test_share=0.4, items=None, **log_format):
    return prepare_impressions(
        folder,
        items,
        behaviours=behaviours,
        test_share=test_share,
        log_format=LogFormat(**log_format),
        scratch=folder.parent / "scratch",
    )


def test_rows_of_a_user_at_a_time_are_one_request_wherever_they_lie(tmp_path):
    folder = write(
        tmp_path / "in",
        user_id=[1, 2, 1, 1],
        item_id=[10, 20, 11, 12],
        label=[0, 1, 1, 0],
        timestamp=[5, 5, 5, 9],
        city=[3, 4, 3, 7],
    )
    prepared = prepare(folder)
    assert prepared.train.to_pylist() == [
        {
            "user_id": 1,
            "timestamp": 5,
            "behaviour_item_ids": [],
            "candidate_item_ids": [10, 11],
            "labels": [0, 1],
            "city": 3,
        },
        {
            "user_id": 2,
            "timestamp": 5,
            "behaviour_item_ids": [],
            "candidate_item_ids": [20],
            "labels": [1],
            "city": 4,
        },
    ]
    assert prepared.test.to_pylist() == [
        {
            "user_id": 1,
            "timestamp": 9,
            "behaviour_item_ids": [11],  # clicked before; 10 was only shown
            "candidate_item_ids": [12],
            "labels": [0],
            "city": 7,
        }
    ]


def test_given_behaviours_are_kept_the_latest_ones(tmp_path):
    folder = write(
        tmp_path / "in",
        user_id=[1, 1],
        item_id=[10, 11],
        label=[0, 1],
        timestamp=[5, 8],
        behaviour_item_ids=[[1, 2, 3], [1, 2, 3, 4]],
    )
    prepared = prepare(folder, behaviours=2, test_share=0.5)
    assert prepared.train["behaviour_item_ids"].to_pylist() == [[2, 3]]
    assert prepared.test["behaviour_item_ids"].to_pylist() == [[3, 4]]


def test_without_time_neighbours_with_equal_behaviours_are_one_request(tmp_path):
    folder = write(
        tmp_path / "in",
        user_id=[1, 1, 1, 2, 2, 1, 1],
        item_id=[10, 11, 12, 13, 14, 15, 16],
        label=[0, 1, 0, 0, 1, 0, 0],
        behaviour_item_ids=[[1, 2], [1, 2], [1, 3], [1, 3], [1, 3], [], [7]],
    )
    prepared = prepare(folder)
    assert "timestamp" not in prepared.train.column_names
    assert prepared.train["candidate_item_ids"].to_pylist() == [[10, 11], [12], [13, 14]]
    assert prepared.test["candidate_item_ids"].to_pylist() == [[15], [16]]
    assert prepared.test["behaviour_item_ids"].to_pylist() == [[], [7]]


def test_without_time_the_last_tenths_of_the_requests_are_for_testing(tmp_path):
    users = list(range(10))
    same = {"item_id": users, "label": [0] * 10, "behaviour_item_ids": [[]] * 10}
    prepared = prepare(write(tmp_path / "in", user_id=users, **same), test_share=0.7)
    assert prepared.train["user_id"].to_pylist() == users[:3]
    assert prepared.test["user_id"].to_pylist() == users[3:]


def test_items_are_the_ids_of_candidates_and_behaviours(tmp_path):
    one = {"user_id": [1], "item_id": [10], "label": [0], "behaviour_item_ids": [[-4, 10]]}
    folder = write(tmp_path / "in", **one)
    assert prepare(folder).items.to_pydict() == {"item_id": [-4, 10]}


GOOD = {"user_id": [1, 1], "item_id": [10, 11], "label": [0, 1], "timestamp": [5, 5]}


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"label": [0, 2]}, "column label must be 0 or 1, got 2"),
        ({"label": [0.5, 1.0]}, "column label must be int64, got double"),
        ({"item_id": [10, None]}, r"1 of 2: 1 where item_id is missing \(a.parquet row 2\)"),
        ({"item_id": [0.5, 1.0]}, "column item_id must be int64 or text, got double"),
        ({"user_id": None}, "must have a column user_id"),
        ({"timestamp": None}, "must have a column timestamp or behaviour_item_ids"),
        ({"behaviour_item_ids": [[1], [2]]}, "behaviour_item_ids must have one value a request"),
        ({"behaviour_item_ids": [[1], [None]]}, "behaviour_item_ids must not hold nulls"),
        ({"timestamp": [5, 5_000_000_000_000]}, "timestamp must be in one unit, got 5 .seconds"),
        ({"Timestamp": [5, 5]}, "column 'Timestamp' must be named timestamp"),
        ({"timestamp": None, "Timestamp ": [5, 5]}, "column 'Timestamp ' must be named timestamp"),
        ({"item_id": [10, 10]}, "one for each user, item and timestamp, got 0 and 1 for 1"),
    ],
)
def test_bad_columns_are_refused_by_name(tmp_path, columns, complaint):
    changed = {name: values for name, values in (GOOD | columns).items() if values is not None}
    with pytest.raises(InputError, match=complaint):
        prepare(write(tmp_path / "in", **changed))


NAMES = ("user_id", "item_id", "timestamp", "label")
ROWS = st.tuples(st.integers(1, 2), st.integers(5, 6), st.integers(0, 3))


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=20), st.lists(st.booleans(), min_size=20), st.data())
def test_rows_that_come_again_change_nothing_wherever_they_lie(tmp_path_factory, rows, click, data):
    once = [(*row, int(label)) for row, label in zip(dict.fromkeys(rows), click, strict=False)]
    again = []
    for row in once:
        again += [row, *data.draw(st.lists(st.sampled_from([*again, row]), max_size=2))]
    folder = tmp_path_factory.mktemp("in")
    expected, found = (
        prepare(write(folder, **{n: [row[at] for row in some] for at, n in enumerate(NAMES)}))
        for some in (once, again)
    )
    assert (found.items, found.train, found.test) == (expected.items, expected.train, expected.test)
    assert len(found.notes) == 1 + (len(again) > len(once))


def test_without_time_only_rows_equal_in_every_column_are_one(tmp_path):
    columns = {
        "user_id": [1, 1, 1, 1, 2],
        "item_id": [10, 11, 10, 10, 10],
        "label": [0, 1, 0, 1, 0],
        "behaviour_item_ids": [[1], [1], [2], [1], [1]],
    }
    once = prepare(write(tmp_path / "once", **columns))
    twice = {name: values * 2 for name, values in columns.items()}
    assert prepare(write(tmp_path / "twice", **twice)).train == once.train
    assert prepare(tmp_path / "twice").test == once.test
    assert once.train["candidate_item_ids"].to_pylist() == [[10, 11], [10], [10]]
    assert once.test["candidate_item_ids"].to_pylist() == [[10]]
