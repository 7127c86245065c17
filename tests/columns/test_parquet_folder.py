"""Folders of Parquet: each file held to the promise, or refused by file, column and type."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.columns import chunks
from torchrec_mm.columns.parquet import BINARY, INT64, INT64_LIST, STRING
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.errors import InputError

A = {"a": INT64}


def folder_of(path: Path, *tables: dict | pa.Table) -> Path:
    path.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        table = table if isinstance(table, pa.Table) else pa.table(table)
        pq.write_table(table, path / f"part-{number}.parquet")
    return path


def read(folder: Path, *types) -> pa.Table:
    return ParquetFolder(folder).read(*types)


def test_the_files_of_a_folder_are_read_in_name_order_as_one_table(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [3, 1]}, {"a": [2]})
    assert [f.name for f in ParquetFolder(folder).files] == ["part-0.parquet", "part-1.parquet"]
    assert ParquetFolder(folder).num_rows == 3
    assert read(folder, A)["a"].to_pylist() == [3, 1, 2]
    chunks = list(ParquetFolder(folder).chunks(A))
    assert [table["a"].to_pylist() for table, _ in chunks] == [[3, 1], [2]]
    assert chunks[1][1] == f"{folder / 'part-1.parquet'} row group 0 from row 0"


def test_only_the_columns_asked_for_are_read_and_nullable_ones_where_they_are(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [2], "c": [None]})
    assert read(folder, {"b": INT64}).column_names == ["b"]
    assert read(folder, {}, {"c": STRING, "d": STRING}).to_pydict() == {"c": [None]}
    ((table, _),) = ParquetFolder(folder).chunks(A, {"c": STRING, "d": STRING})
    assert table.to_pydict() == {"a": [1], "c": [None]}


def test_files_may_order_their_columns_differently(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [2]}, {"b": [4], "a": [3]})
    assert read(folder, A | {"b": INT64}).to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_files_of_several_writers_are_one_table(tmp_path):
    strict = pa.schema([pa.field("a", INT64, nullable=False)], metadata={"pandas": "{}"})
    folder = folder_of(tmp_path / "d", pa.table({"a": [1]}, schema=strict), {"a": [2]})
    assert read(folder, A)["a"].to_pylist() == [1, 2]


def test_names_with_dots_are_names(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "a.b": [[2]], "a b": ["x"], "": [3]})
    types = {"a.b": INT64_LIST, "a": INT64, "a b": STRING, "": INT64}
    row = {"a.b": [2], "a": 1, "a b": "x", "": 3}
    assert read(folder, types).to_pylist() == [row]
    ((table, _),) = ParquetFolder(folder).chunks(types)
    assert table.to_pylist() == [{name: row[name] for name in table.column_names}]
    assert set(table.column_names) == set(row)


INTEGERS = (pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.uint64())
OTHERS = {
    pa.float64(): [1.0, 2.0],
    pa.string(): ["1", "2"],
    pa.bool_(): [True, False],
    pa.timestamp("us"): [1, 2],
    pa.decimal128(5): [1, 2],
    pa.date32(): [1, 2],
    pa.list_(pa.int64()): [[1], [2]],
    pa.binary(): [b"1", b"2"],
}
VALUES = st.one_of(
    st.integers(-128, 127), st.integers(0, 2**16 - 1), st.integers(-(2**63), 2**64 - 1)
)
COLUMNS = st.one_of(
    st.tuples(st.sampled_from(INTEGERS), st.lists(VALUES, min_size=1, max_size=3)),
    st.sampled_from(list(OTHERS.items())),
    st.just((pa.null(), [])),
)


@st.composite
def integer_columns(draw):
    kind, values = draw(COLUMNS)
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError):  # too large for the kind
        return pa.array([0, 1], kind)


@given(st.lists(integer_columns(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=200)
def test_each_file_is_held_to_the_type_and_no_value_changes(parts):
    """Whatever the order of the files: the first decides nothing."""
    wrong = [
        number
        for number, part in enumerate(parts)
        if not (pa.types.is_integer(part.type) or pa.types.is_null(part.type))
        or any(value >= 2**63 for value in part.to_pylist())
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder_of(Path(scratch), *({"a": part} for part in parts))
        readers = (
            lambda: read(folder, A)["a"].to_pylist(),
            lambda: sum((t["a"].to_pylist() for t, _ in ParquetFolder(folder).chunks(A)), []),
        )
        for reader in readers:
            if not wrong and sum(map(len, parts)):
                assert reader() == sum((part.to_pylist() for part in parts), [])
                continue
            with pytest.raises(InputError) as refusal:
                reader()
            if wrong:
                words = [f"part-{n}.parquet" for n in wrong]
                assert any(word in str(refusal.value) for word in words)
                assert " column a must be int64, got " in str(refusal.value)


@pytest.mark.parametrize(
    ("first", "second", "promised"),
    [
        (pa.list_(pa.int8()), pa.list_(pa.float64()), INT64_LIST),
        (pa.list_(pa.int32()), pa.list_(pa.string()), INT64_LIST),
        (pa.list_(pa.null()), pa.list_(pa.timestamp("s")), INT64_LIST),
        (pa.list_(pa.int64(), 1), pa.list_(pa.bool_()), INT64_LIST),
        (pa.string(), pa.binary(), STRING),
        (pa.binary(), pa.string(), BINARY),
        (pa.null(), pa.int64(), STRING),
    ],
)
def test_a_later_file_of_another_kind_is_refused_before_a_value_is_read(
    tmp_path, monkeypatch, first, second, promised
):
    folder = folder_of(tmp_path / "d", *({"a": pa.array([], kind)} for kind in (first, second)))
    pq.write_table(pa.table({"a": pa.nulls(1, first)}), folder / "part-2.parquet")
    words = r"d/part-1\.parquet column a must be .*, got"
    with pytest.raises(InputError, match=words):
        ParquetFolder(folder).check({}, {"a": promised})
    with pytest.raises(InputError, match=words):
        read(folder, {"a": promised})


def test_lists_of_several_widths_keep_their_values(tmp_path):
    big = [[2**53 + 1], [], [-1, 2**62]]
    kinds = (pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 1), pa.null())
    values = ([[1], []], big, [[7]], [])
    parts = [{"a": pa.array(*each)} for each in zip(values, kinds, strict=True)]
    folder = folder_of(tmp_path / "d", *parts)
    assert read(folder, {"a": INT64_LIST})["a"].to_pylist() == [[1], [], *big, [7]]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 not really", b"x" * 10_000 + b"PARE"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    folder = folder_of(tmp_path / "d", {"a": [1]})
    (folder / "part-1.parquet").write_bytes(content)
    with pytest.raises(InputError, match="part-1.parquet must be a readable Parquet file"):
        ParquetFolder(folder)


def test_a_file_whose_pages_are_damaged_is_refused(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [f"some text {row}" for row in range(5000)]})
    file = folder / "part-0.parquet"
    content = bytearray(file.read_bytes())
    content[50:2000] = b"\xff" * 1950
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"part-0\.parquet could not be read"):
        read(folder, {"a": STRING})


def test_a_page_that_changed_on_disk_is_refused(tmp_path):
    file = folder_of(tmp_path / "d", {"a": [1]}) / "part-0.parquet"
    columns = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table({"a": [12345, 67890]}), file, **columns)
    content = file.read_bytes()
    place = content.index(np.array([12345, 67890]).tobytes())
    file.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(InputError, match=r"part-0\.parquet could not be read: .*checksum"):
        read(file.parent, A)
    with pytest.raises(InputError, match=r"row group 0 could not be read: .*checksum"):
        list(ParquetFolder(file.parent).chunks(A))


def test_chunks_are_small_whatever_the_columns_are_called(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 10)
    folder = folder_of(tmp_path / "d", {"a.b": range(40), "a": range(40)})
    for types in ({"a.b": INT64}, A):
        parts = [table.num_rows for table, _ in ParquetFolder(folder).chunks(types)]
        assert sum(parts) == 40 and max(parts) <= 10


def test_files_that_disagree_on_their_columns_are_refused_by_name(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1]}, {"a": [1], "b": [1]})
    with pytest.raises(InputError, match=r"part-1.parquet must have the columns of part-0.parquet"):
        ParquetFolder(folder)


def test_two_columns_of_one_name_are_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1])] * 3, ["a", "b", "a"])
    with pytest.raises(InputError, match=r"part-1\.parquet must have one column a, got 2 of this"):
        ParquetFolder(folder_of(tmp_path / "d", {"a": [1], "b": [2]}, twice))


def test_a_column_that_is_missing_is_named_beside_those_that_are_there(tmp_path):
    folder = folder_of(tmp_path / "d", {"a": [1], "b": [1]})
    with pytest.raises(InputError, match="d must have a column user_id, got a, b"):
        read(folder, {"user_id": INT64})


@pytest.mark.parametrize("table", [{"a": pa.array([], INT64)}, {}])
def test_a_folder_without_a_row_is_refused(tmp_path, table):
    with pytest.raises(InputError, match="d must hold at least one row, got 0"):
        ParquetFolder(folder_of(tmp_path / "d", table, table))
