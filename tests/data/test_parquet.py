"""Folders of Parquet: read whole, or refused by folder, column and type."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.data.parquet import (
    BINARY,
    INT8_LIST,
    INT64,
    INT64_LIST,
    STRING,
    check_columns,
    open_dataset,
    parquet_files,
    read_table,
    write_table,
)
from torchrec_mm.errors import InputError


def folder_of(path: Path, *tables: dict | pa.Table) -> Path:
    path.mkdir()
    for number, table in enumerate(tables):
        table = table if isinstance(table, pa.Table) else pa.table(table)
        pq.write_table(table, path / f"part-{number}.parquet")
    return path


def test_the_files_of_a_folder_are_read_in_name_order_as_one_table(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [3, 1]}, {"a": [2]})
    (folder / "notes.txt").write_text("not Parquet")
    assert [file.name for file in parquet_files(folder)] == ["part-0.parquet", "part-1.parquet"]
    assert read_table(folder)["a"].to_pylist() == [3, 1, 2]


def test_only_the_columns_asked_for_are_read(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [2]})
    assert read_table(folder, ["b"]).column_names == ["b"]


def test_files_may_order_their_columns_differently(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [2]}, {"b": [4], "a": [3]})
    assert read_table(folder).to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="none must be a folder of Parquet files: no such folder"):
        read_table(tmp_path / "none")


def test_a_folder_without_parquet_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold at least one .parquet file, found none"):
        read_table(folder_of(tmp_path / "d"))


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1]})
    (folder / "part-1.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="part-1.parquet must be a readable Parquet file"):
        open_dataset(folder)


def test_a_file_whose_pages_are_damaged_is_refused(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [f"some text {row}" for row in range(5000)]})
    file = folder / "part-0.parquet"
    content = bytearray(file.read_bytes())
    content[50:2000] = b"\xff" * 1950
    file.write_bytes(content)
    with pytest.raises(InputError, match="could not be read"):
        read_table(folder)


def test_files_that_disagree_on_their_columns_are_refused_by_name(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1]}, {"a": [1], "b": [1]})
    with pytest.raises(InputError, match=r"part-1.parquet must have the columns of part-0.parquet"):
        open_dataset(folder)


def test_files_that_disagree_on_a_type_are_refused(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1]}, {"a": ["x"]})
    with pytest.raises(InputError, match="d could not be read"):
        read_table(folder)


def test_a_column_that_is_missing_is_named_beside_those_that_are_there(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [1]})
    with pytest.raises(InputError, match="must have a column user_id, got a, b"):
        read_table(folder, ["user_id"])


def test_a_folder_without_a_row_is_refused(tmp_path):
    folder = folder_of(tmp_path / "d", pa.table({"a": pa.array([], INT64)}))
    with pytest.raises(InputError, match="must hold at least one row, got 0"):
        read_table(folder)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pa.array([1], pa.int32()), INT64),
        (pa.array([2**63 - 1], pa.uint64()), INT64),
        (pa.array(["a"], pa.large_string()), STRING),
        (pa.array([b"a"], pa.large_binary()), BINARY),
        (pa.array([[1]], pa.large_list(pa.int32())), INT64_LIST),
        (pa.array([[0, 1]], INT64_LIST), INT8_LIST),
        (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), INT64_LIST),
        (pa.array(["a", "b", "a"]).dictionary_encode(), STRING),
        (pa.array([[], []]), INT64_LIST),
    ],
)
def test_a_column_is_cast_where_no_value_changes(given, wanted):
    checked = check_columns(pa.table({"c": given}), "d", required={"c": wanted})
    assert checked["c"].type == wanted
    assert checked["c"].to_pylist() == given.to_pylist()


@pytest.mark.parametrize(
    ("given", "wanted", "words"),
    [
        (pa.array([0.5]), INT64, "d column c must be int64, got double"),
        (pa.array([2**63], pa.uint64()), INT64, "d column c must be int64, got uint64"),
        (pa.array(["x"]), INT64, "d column c must be int64, got string"),
        (pa.array([[300]]), INT8_LIST, r"d column c must be list<.*int8>, got list<.*int64>"),
        (pa.array([{"x": 1}]), INT64, r"d column c must be int64, got struct"),
        (pa.array([1]), INT64_LIST, r"d column c must be list<.*int64>, got int64"),
    ],
)
def test_a_column_that_would_have_to_change_is_refused_by_type(given, wanted, words):
    with pytest.raises(InputError, match=words):
        check_columns(pa.table({"c": given}), "d", required={"c": wanted})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pa.array(["12"]), INT64),
        (pa.array([1.0]), INT64),
        (pa.array([True]), INT64),
        (pa.array([datetime.datetime(2024, 1, 1)]), INT64),
        (pa.array([7]), STRING),
        (pa.array([b"\xff"]), STRING),
    ],
)
def test_a_column_of_another_kind_is_refused_even_if_its_values_would_fit(given, wanted):
    with pytest.raises(InputError, match="d column c must be"):
        check_columns(pa.table({"c": given}), "d", required={"c": wanted})


def test_nulls_are_refused_where_required_and_kept_where_nullable():
    table = pa.table({"c": pa.array([1, None], INT64)})
    with pytest.raises(InputError, match="d column c must not be null, got 1 nulls"):
        check_columns(table, "d", required={"c": INT64})
    assert check_columns(table, "d", {}, nullable={"c": INT64})["c"].to_pylist() == [1, None]


def test_a_nullable_column_of_nothing_but_nulls_has_the_promised_type():
    checked = check_columns(pa.table({"c": pa.nulls(2)}), "d", {}, nullable={"c": STRING})
    assert checked["c"].type == STRING
    assert checked["c"].to_pylist() == [None, None]


def test_columns_may_be_absent_only_where_nullable():
    table = pa.table({"other": [1]})
    assert check_columns(table, "d", {}, nullable={"c": INT64}) == table
    with pytest.raises(InputError, match="d must have a column c, got other"):
        check_columns(table, "d", required={"c": INT64})


def test_columns_that_are_not_named_pass_through():
    table = pa.table({"c": [1], "other": ["x"]})
    assert check_columns(table, "d", required={"c": INT64}) == table


def test_a_table_is_written_whole_and_reads_back_equal(tmp_path):
    table = pa.table({"a": list(range(7))})
    write_table(tmp_path / "new" / "a.parquet", table, row_group_rows=3)
    assert read_table(tmp_path / "new") == table
    assert pq.ParquetFile(tmp_path / "new" / "a.parquet").num_row_groups == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.parquet"]
