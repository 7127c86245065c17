"""Columns that the contract does not name: one role over all files and splits, or a refusal."""

import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.columns.parquet import INT64, INT64_LIST
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.roles import further_columns
from torchrec_mm.errors import InputError

ONE, LIST, NOTHING = "one", "list", "nothing"
KINDS = {
    **dict.fromkeys((pa.int8(), pa.int32(), INT64, pa.uint64()), ONE),
    **dict.fromkeys((INT64_LIST, pa.large_list(pa.int32()), pa.list_(INT64, 2)), LIST),
    **dict.fromkeys((pa.list_(pa.null()), pa.list_(pa.uint8())), LIST),
    pa.null(): NOTHING,
}
OTHERS = (
    *(pa.float64(), pa.string(), pa.bool_(), pa.timestamp("s"), pa.decimal128(9), pa.binary()),
    *(pa.list_(pa.string()), pa.list_(pa.float32()), pa.list_(INT64_LIST), pa.list_view(INT64)),
    *(pa.struct({"a": INT64}), pa.map_(INT64, INT64), pa.dictionary(pa.int32(), pa.string())),
    *(pa.uuid(), pa.fixed_shape_tensor(pa.float32(), [2])),
)


def folder_of(path: Path, *schemas: dict[str, pa.DataType]) -> ParquetFolder:
    """A file of a single row of nulls for each schema."""
    path.mkdir()
    for number, schema in enumerate(schemas):
        columns = {name: pa.nulls(1, kind) for name, kind in schema.items()}
        pq.write_table(pa.table({"id": [number], **columns}), path / f"{number}.parquet")
    return ParquetFolder(path)


def roles(*folders: ParquetFolder, **options) -> dict[str, pa.DataType]:
    return further_columns(folders, {"id"}, [INT64, INT64_LIST], **options)


@given(
    st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4),
    st.one_of(st.none(), st.sampled_from(OTHERS)),
    st.data(),
)
@settings(deadline=None, max_examples=200)
def test_the_order_of_files_and_splits_decides_nothing(kinds, other, data):
    at = data.draw(st.integers(0, len(kinds)))
    split = data.draw(st.integers(0, len(kinds)))
    wrong = other is not None
    if wrong:
        kinds = [*kinds[:at], other, *kinds[at:]]
    said = {KINDS.get(kind) for kind in kinds} - {NOTHING, None}
    with tempfile.TemporaryDirectory() as scratch:
        parts = [{"f": kind} for kind in kinds]
        folders = [
            folder_of(Path(scratch) / name, *schemas)
            for name, schemas in (("train", parts[:split]), ("test", parts[split:]))
            if schemas
        ]
        if not wrong and len(said) < 2:
            assert roles(*folders) == {"f": INT64_LIST if said == {LIST} else INT64}
            return
        with pytest.raises(InputError, match=r"\.parquet column f must be ") as refusal:
            roles(*folders)
        if wrong and len(said) < 2:
            number = at if at < split else at - split
            folder = folders[0 if at < split else -1].folder
            assert f"{folder}/{number}.parquet" in str(refusal.value)


def test_a_column_of_one_split_alone_is_one_of_all(tmp_path):
    train, test = folder_of(tmp_path / "train", {"a": INT64}), folder_of(tmp_path / "test", {})
    assert roles(train, test) == roles(test, train) == {"a": INT64}


def test_an_int_here_and_a_list_there_is_refused_by_both_files(tmp_path):
    train = folder_of(tmp_path / "train", {"f": pa.null()}, {"f": INT64})
    test = folder_of(tmp_path / "test", {"f": INT64_LIST})
    words = r"test/0.parquet column f must be int64 as in .*train/1.parquet, got list<"
    with pytest.raises(InputError, match=words):
        roles(train, test)


def test_what_can_be_done_is_said(tmp_path):
    folder = folder_of(tmp_path / "d", {"price": pa.float64()})
    for types, words in (
        ([INT64, INT64_LIST], "must be int64 or list<int64>, or left out, got double"),
        ([INT64], "must be int64, or left out, got double"),
        ([], "must be left out, got double"),
    ):
        with pytest.raises(InputError, match=f"d/0.parquet column price {words}"):
            further_columns([folder], {"id"}, types)


def test_the_index_of_pandas_is_no_feature(tmp_path):
    folder = folder_of(tmp_path / "d", {"__index_level_0__": INT64})
    with pytest.raises(InputError, match="__index_level_0__ must be left out, .*index=False"):
        roles(folder)


def test_a_model_reads_what_it_knows_and_the_rest_is_named(tmp_path, caplog):
    folder = folder_of(tmp_path / "d", *[{"a": INT64, "note": pa.string(), "b": INT64}] * 2)
    with caplog.at_level(logging.WARNING):
        assert roles(folder, known={"a": [INT64], "c": [INT64]}) == {"a": INT64}
    (record,) = caplog.records
    words = f"{tmp_path / 'd'} columns that the model was not trained with are not used: note, b"
    assert record.getMessage() == words
    with pytest.raises(InputError, match="column note must be int64"):
        roles(folder, known={"note": [INT64]})


def test_lists_of_nothing_are_what_the_others_say(tmp_path):
    empty, texts = {"f": pa.list_(pa.null())}, {"f": pa.list_(pa.string())}
    kinds = [INT64, INT64_LIST, pa.list_(pa.string())]
    folder = folder_of(tmp_path / "d", empty, texts, empty)
    assert further_columns([folder], {"id"}, kinds) == {"f": pa.list_(pa.string())}
    folder = folder_of(tmp_path / "e", empty, {"f": INT64})
    words = "column f must be list<int64> or list<string> as in .*e/0.parquet, got int64"
    with pytest.raises(InputError, match=words):
        further_columns([folder], {"id"}, kinds)
