"""No number of an encoded data set leads out of a table or of the items, however it got there."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.small_market import write_small_market
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encode.writer import PLAIN
from torchrec_mm.data.encoded import checks as encoded_checks
from torchrec_mm.data.encoded.checks import check_rows
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.errors import InputError

COLUMNS = (
    *("candidates", "behaviours", "request/user_id", "request/city"),
    *("behaviour/stars", "behaviour/action"),
)


@pytest.fixture
def encoded(tmp_path) -> Path:
    data = write_small_market(tmp_path / "market").data
    encode_folder(data, ("train",), tmp_path / "encoded", max_behaviours=5, min_count=2)
    return tmp_path / "encoded"


def read_all(folder: Path) -> EncodedRequests:
    data = EncodedRequests(folder, "train")
    for group in data.groups:
        data.read(group)
    return data


def part_of(folder: Path) -> Path:
    return folder / "requests" / "train" / "part-00000.parquet"


def rewrite(folder: Path, change) -> None:
    """Let ``change`` have the requests' columns, and write them as they are written."""
    table = pq.read_table(part_of(folder))
    columns = dict(zip(table.column_names, table.combine_chunks().columns, strict=True))
    change(columns)
    pq.write_table(pa.table(columns), part_of(folder), **PLAIN)


def put(column: pa.ChunkedArray, number: int, at: int) -> pa.Array:
    """The column with another number among its values, counted over all lists."""
    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    is_list = pa.types.is_list(column.type)
    values = (column.values if is_list else column).to_numpy().copy()
    values[at % len(values)] = number
    array = pa.array(values)
    return pa.ListArray.from_arrays(column.offsets, array) if is_list else array


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("beyond", [0, 1, 2**30, "negative", "lowest"])
def test_a_number_outside_its_table_is_refused_by_name(column, beyond, encoded):
    data = read_all(encoded)
    limit = data.num_rows.get(column.split("/")[-1], len(data.items.item_ids))
    number = {"negative": -1, "lowest": -(2**31)}.get(beyond) or limit + beyond
    rewrite(encoded, lambda columns: columns.update({column: put(columns[column], number, 7)}))
    kind = "table" if "/" in column else "numbers of items"
    with pytest.raises(
        InputError,
        match=f"part-00000.parquet row group 0 column {column} .*{kind}.*, got {number}$",
    ):
        read_all(encoded)
    rewrite(encoded, lambda columns: columns.update({column: put(columns[column], limit - 1, 7)}))
    read_all(encoded)


@pytest.mark.parametrize("feature", [0, 1, 2])
@pytest.mark.parametrize("number", [-1, 10**6])
def test_items_outside_their_tables_are_refused_by_name(feature, number, encoded):
    path = encoded / "items" / "rows.npy"
    rows = np.load(path, allow_pickle=False)
    rows[feature, -1] = number
    np.save(path, rows)
    name = json.loads((encoded / "meta.json").read_text())["item_features"][feature]
    with pytest.raises(InputError, match=f"rows.npy of feature {name} must be .* got {number}"):
        EncodedRequests(encoded, "train")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.data(), st.integers(1, 5), st.sampled_from([-1, 10, 99, -(2**31)]))
def test_a_wrong_number_is_found_wherever_it_is_a_block_at_a_time(count, data, block, wrong):
    numbers = np.arange(count, dtype=np.int32) % 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded_checks, "BLOCK", block)
        check_rows(numbers, 10, "here")
        numbers[data.draw(st.integers(0, count - 1))] = wrong
        with pytest.raises(InputError, match=f"here must be rows of a table of 10, got {wrong}$"):
            check_rows(numbers, 10, "here")


def longer(folder: Path, candidates: int, behaviours: int) -> None:
    """A request says that it has so many more of each."""
    lengths = np.load(folder / "requests" / "train" / "lengths.npy", allow_pickle=False)
    lengths[5] += [candidates, behaviours]
    np.save(folder / "requests" / "train" / "lengths.npy", lengths)


def cast(path: Path, dtype: type) -> None:
    np.save(path, np.load(path, allow_pickle=False).astype(dtype))


def other_vocabularies(folder: Path) -> None:
    """Those of data without the context feature ``page``."""
    data = write_small_market(folder.parent / "other").data
    train = data / "requests" / "train" / "part.parquet"
    pq.write_table(pq.read_table(train).drop_columns(["page"]), train)
    take_vocabularies(data, folder)


def few_ids(folder: Path) -> None:
    """Vocabularies of the same features that know next to nothing."""
    data = write_small_market(folder.parent / "other", train=1).data
    take_vocabularies(data, folder)


def take_vocabularies(data: Path, folder: Path) -> None:
    less, name = folder.parent / "less", "vocabularies.safetensors"
    encode_folder(data, ("train",), less, max_behaviours=5, min_count=2)
    (less / name).replace(folder / name)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: longer(f, 1, 0), "column candidates must be as long as lengths.npy says"),
        (lambda f: longer(f, 0, 1), "column behaviours must be as long as lengths.npy says"),
        (lambda f: longer(f, -9, 0), "must count at least 1 candidates, got -"),
        (lambda f: longer(f, 0, -9), "must count at least 0 behaviours, got -"),
        (lambda f: rewrite(f, lambda c: c.pop("request/city")), "have the column 'request/city'"),
        (lambda f: rewrite(f, lambda c: c.pop("labels")), "must have the column 'labels'"),
        (
            lambda f: rewrite(
                f, lambda c: c.update(labels=c["behaviours"].cast(pa.list_(pa.int8())))
            ),
            "column labels must be as long as lengths.npy says",
        ),
        (
            lambda f: rewrite(
                f, lambda c: c.update({"request/city": c["request/city"].cast(pa.int64())})
            ),
            "column request/city must be int32, got int64",
        ),
        (lambda f: cast(f / "items" / "item_ids.npy", np.float64), "must be int64, got float64"),
        (lambda f: cast(f / "items" / "created_at.npy", np.int32), "must be int64, got int32"),
        (lambda f: cast(f / "items" / "rows.npy", np.int64), "must be int32, got int64"),
        (lambda f: cast(f / "requests/train/lengths.npy", np.int64), "must be int32, got int64"),
        (lambda f: (f / "vocabularies.safetensors").unlink(), "must be the vocabularies of"),
        (
            lambda f: (f / "vocabularies.safetensors").write_bytes(b"\x09 garbled"),
            "must be a whole file of vocabularies",
        ),
        (other_vocabularies, "must be of the request features of meta.json, user_id, city, page"),
        (few_ids, "must be rows of a table of"),
    ],
)
def test_files_that_do_not_go_together_are_refused_by_name(spoil, words, encoded):
    spoil(encoded)
    with pytest.raises(InputError, match=words) as refused:
        read_all(encoded)
    assert str(encoded) in str(refused.value) and "\n" not in str(refused.value)
