"""Columns are cast where no value changes, or refused by name and type."""

import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.columns.parquet import (
    BINARY,
    INT8_LIST,
    INT64,
    INT64_LIST,
    STRING,
    check_columns,
    write_table,
)
from torchrec_mm.errors import InputError


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
        (pa.array(["a", "b"], pa.string_view()), STRING),
        (pa.array([b"a"], pa.binary_view()), BINARY),
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
        (pa.array([2**63], pa.uint64()), INT64, "d column c must be int64, got uint64: .*not in"),
        (pa.array([[1]], pa.list_view(INT64)), INT64_LIST, r"d column c must be list<.*list_view"),
        (pa.array([[[1]]]), INT64_LIST, "d column c must be list<.*got list<.*list<"),
        (pa.array([b"x" * 16], pa.uuid()), BINARY, "d column c must be binary, got ext"),
        (
            pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
            *(INT64, "d column c must be int64, got extension"),
        ),
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
        (pa.array([decimal.Decimal(1)]), INT64),
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


@pytest.mark.parametrize("kind", [STRING, pa.large_string(), pa.string_view(), "dictionary"])
def test_bytes_that_are_no_text_are_refused_by_column_and_row(kind):
    texts = pa.array([b"good", b"t\xe9", None]).view(pa.string())
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)
    with pytest.raises(InputError, match=r"d column c must be UTF-8 text: .*index 1"):
        check_columns(pa.table({"c": texts}), "d", {}, nullable={"c": STRING})


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
    assert pq.read_table(tmp_path / "new") == table
    assert pq.ParquetFile(tmp_path / "new" / "a.parquet").num_row_groups == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.parquet"]
