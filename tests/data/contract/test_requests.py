"""Requests from disk: what is read, what is cut, what is refused and by what name."""

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.request_folders import read_requests
from tests.helpers.small_market import write_parquet
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.features import NULL, Categorical
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import parse_requests
from torchrec_mm.errors import InputError

GOOD = {
    "user_id": [5, -6],
    "timestamp": [100, 200],
    "behaviour_item_ids": [[1, 2, 3], []],
    "candidate_item_ids": [[7], [8, 9]],
    "labels": [[1], [0, 1]],
    "city": [3, 4],
    "action": [[10, 20, 30], []],
}


def requests_of(tmp_path, max_behaviours: int = 50, **changes):
    """GOOD with some columns replaced, or left out where None."""
    columns = {name: values for name, values in (GOOD | changes).items() if values is not None}
    write_parquet(tmp_path / "train", columns)
    return read_requests(tmp_path / "train", max_behaviours)


def test_columns_are_told_apart_by_what_they_hold(tmp_path):
    requests = requests_of(tmp_path)
    assert len(requests) == 2
    assert requests.num_impressions == 3
    assert requests.user_ids.tolist() == [5, -6]
    assert requests.timestamps.tolist() == [100, 200]
    assert requests.behaviours.values.tolist() == [1, 2, 3]
    assert requests.behaviours.offsets.tolist() == [0, 3, 3]
    assert requests.candidates.values.tolist() == [7, 8, 9]
    assert requests.candidates.offsets.tolist() == [0, 1, 3]
    assert requests.labels.tolist() == [1, 0, 1]
    assert {name: ids.tolist() for name, ids in requests.features.items()} == {"city": [3, 4]}
    assert {name: ids.tolist() for name, ids in requests.behaviour_attributes.items()} == {
        "action": [10, 20, 30]
    }


def test_the_id_of_a_request_is_no_feature_but_text_that_may_be_null_or_absent(tmp_path):
    without = requests_of(tmp_path / "without").columns.keys()
    assert requests_of(tmp_path / "with", request_id=["a", None]).columns.keys() == without
    requests_of(tmp_path / "numbers", request_id=[1, 2])
    folder = ParquetFolder(tmp_path / "numbers" / "train")
    with pytest.raises(InputError, match="column request_id must be string, got int64"):
        RequestColumns.of([folder], {}).check(folder)


@pytest.mark.parametrize(("most", "kept"), [(1, [3, 5]), (2, [2, 3, 5]), (3, [1, 2, 3, 5])])
def test_the_newest_behaviours_are_kept_with_their_attributes(tmp_path, most, kept):
    columns = {"behaviour_item_ids": [[1, 2, 3], [5]], "action": [[10, 20, 30], [50]]}
    requests = requests_of(tmp_path, most, **columns)
    assert requests.behaviours.values.tolist() == kept
    assert requests.behaviours.lengths.tolist() == [most, 1]
    assert requests.behaviour_attributes["action"].tolist() == [10 * item for item in kept]


def test_features_of_all_kinds_are_ids_with_one_for_null(tmp_path):
    columns = {name: pa.array(values) for name, values in GOOD.items()} | {
        "labels": pa.array(GOOD["labels"], pa.list_(pa.int8())),
        "city": pa.array([None, 4], pa.int16()),
        "device": pa.array(["phone", None], pa.string_view()),
        "is_new": pa.array([None, True]),
        "via": pa.array([["mail", None, ""], []], pa.large_list(pa.large_string())),
        "action": pa.array([[10, None, 30], []]),
    }
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "train" / "part.parquet")
    requests = read_requests(tmp_path / "train", 2)
    assert {name: ids.tolist() for name, ids in requests.features.items()} == {
        "city": [NULL, 4],
        "device": [hash_text("phone"), NULL],
        "is_new": [NULL, 1],
    }
    assert {name: ids.tolist() for name, ids in requests.behaviour_attributes.items()} == {
        "action": [NULL, 30],
        "via": [NULL, hash_text("")],
    }


def test_numbers_of_requests_and_impressions_are_numbers_with_nulls_apart(tmp_path):
    columns = {name: pa.array(values) for name, values in GOOD.items()} | {
        "labels": pa.array(GOOD["labels"], pa.list_(pa.int8())),
        "age": pa.array([None, 41.5], pa.float32()),
        "income": pa.array([Decimal("10.25"), None]),
        "candidate_price": pa.array([[0.5], [None, 2.5]], pa.large_list(pa.float32())),
        "candidate_position": pa.array([[1], [1, None]], pa.list_(pa.uint8())),
    }
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "train" / "part.parquet")
    requests = read_requests(tmp_path / "train", 2)
    found = {name: values.tolist() for name, values in requests.numbers.items()}
    assert repr(found) == repr({"age": [float("nan"), 41.5], "income": [10.25, float("nan")]})
    prices = requests.impression_numbers["candidate_price"].tolist()
    assert repr(prices) == repr([0.5, float("nan"), 2.5])
    assert requests.impression_features["candidate_position"].tolist() == [1, 1, NULL]
    assert list(requests.features) == ["city"]


def test_times_are_optional_and_all_or_none(tmp_path):
    assert requests_of(tmp_path, timestamp=None).timestamps is None
    assert requests_of(tmp_path, timestamp=[1, None]).timestamps is None


def test_without_labels_only_what_is_known_is_read(tmp_path):
    changes = {"labels": ["5", ""], "number": [None, 1], "price": [2.5, 1], "note": ["", ""]}
    write_parquet(tmp_path / "new", GOOD | changes)
    folder = ParquetFolder(tmp_path / "new")
    known = {"city": Categorical.known(None)}, {"action": Categorical.known(None, is_list=True)}
    columns = RequestColumns.of([folder], {}, RequestColumns(*known), has_labels=False)
    assert list(columns.required) == [
        *("user_id", "behaviour_item_ids", "candidate_item_ids", "action")
    ]
    assert list(columns.nullable) == ["timestamp", "city"]
    table = folder.read(columns.required, columns.nullable)
    requests = parse_requests(table, "new", columns, 50)
    assert requests.timestamps.tolist() == [100, 200]
    assert requests.labels.tolist() == [0, 0, 0]
    assert list(requests.features) == ["city"] and requests.features["city"].tolist() == [3, 4]
    assert list(requests.behaviour_attributes) == ["action"]


def test_files_of_a_folder_are_read_in_name_order(tmp_path):
    requests_of(tmp_path)
    part = tmp_path / "train" / "part.parquet"
    earlier = pq.read_table(part).set_column(0, "user_id", pa.array([1, 2]))
    pq.write_table(earlier, part.with_name("earlier.parquet"))
    assert read_requests(tmp_path / "train", 50).user_ids.tolist() == [1, 2, 5, -6]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [[1], [0]]}, "labels must be as long as candidate_item_ids, row 1 has 1 and 2"),
        ({"labels": [[1], [0, 2]]}, "train column labels must be 0 or 1, got 2"),
        ({"labels": [[-1], [0, 1]]}, "train column labels must be 0 or 1, got -1"),
        ({"labels": [[1], [0, None]]}, "train column labels must not hold nulls, got 1"),
        ({"labels": None}, "train must have a column labels"),
        ({"user_id": None}, "train must have a column user_id"),
        ({"user_id": ["a", "b"]}, "train/part.parquet column user_id must be int64, got str"),
        ({"user_id": [1, None]}, "train/part.parquet column user_id must not be null"),
        ({"candidate_item_ids": [7, 8]}, "column candidate_item_ids must be list"),
        ({"candidate_item_ids": [[7], []], "labels": [[1], []]}, "must not be empty, row 1 is"),
        ({"behaviour_item_ids": [[1, 2, 3], None]}, "column behaviour_item_ids must not be null"),
        ({"behaviour_item_ids": [[1, 2, None], []]}, "behaviour_item_ids must not hold nulls"),
        ({"city": [1, NULL]}, f"train column city must not hold {NULL}, the id of null"),
        ({"action": [[10, 20, NULL], []]}, f"train column action must not hold {NULL}, the id"),
        ({"action": [[10, 20, 30], None]}, "column action must not be null"),
        ({"action": [[10, 20], []]}, "as long as behaviour_item_ids, row 0 has 2 and 3"),
        ({"timestamp": ["noon", "one"]}, "column timestamp must be int64, got string"),
        ({"timestamp": [None, 10**12]}, "column timestamp must be seconds .* divide by 1000$"),
        ({"timestamp": None, "TimeStamp": [1, 2]}, "column 'TimeStamp' must be named timestamp"),
        ({" labels": [[1], [0, 1]]}, "train/part.parquet column ' labels' must be named labels"),
        (
            {"f": [b"no", b"text"]},
            "int64 or bool or string or list<int64> or list<string> or double, or left out, got",
        ),
        ({"f": pa.array([[0.5] * 3, []])}, "or list<string> or double, or left out, got list<"),
        ({"f": [0.5, float("nan")]}, "train column f must be finite or null, row 1 has nan"),
        (
            {"candidate_f": pa.array([[0.5], [1.5]])},
            "as long as candidate_item_ids, row 1 has 1 and 2",
        ),
        (
            {"candidate_f": pa.array([[b"a"], [b"b", b"c"]])},
            "candidate_f must be list<int64> or list<string> or list<double>, or left out, got",
        ),
    ],
)
def test_a_mistake_is_named_by_column_rule_and_value(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        requests_of(tmp_path, **changes)


def test_labels_are_checked_even_where_nothing_else_tells_long_from_short(tmp_path):
    """As many labels as candidates in all, but not request by request."""
    with pytest.raises(InputError, match="labels must be as long as candidate_item_ids, row 0"):
        requests_of(tmp_path, labels=[[1, 0], [1]])


def test_a_missing_folder_and_a_folder_without_rows_are_named(tmp_path):
    with pytest.raises(InputError, match="train must be a folder of Parquet files"):
        read_requests(tmp_path / "train", 50)
    requests_of(tmp_path)
    part = tmp_path / "train" / "part.parquet"
    pq.write_table(pq.read_table(part)[:0], part)
    with pytest.raises(InputError, match="train must hold at least one row, got 0"):
        read_requests(tmp_path / "train", 50)
