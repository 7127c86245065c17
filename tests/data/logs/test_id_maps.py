"""Logs and catalogues whose ids are text."""

import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.event_logs import (
    duckdb_engine,
    opened,
    prepare,
    requests_in,
    requests_of_rows,
    write_csv,
    write_log,
)
from torchrec_mm.columns import text_ids
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.logs.file_forms import found_out
from torchrec_mm.errors import InputError

ROWS = [
    ("u4", "i0", 0, "click"),
    *(("u4", "i0", time, "view") for time in range(4)),
    ("ü1", "i5", 9, "view"),
    ("u4", "i6", 9, "click"),
]
HASHED = [(hash_text(user), hash_text(item), *rest) for user, item, *rest in ROWS]


def write_one_csv(folder, rows):
    return write_csv(folder / "a.csv", rows)


def map_of(data, name):
    table = pq.read_table(data / "ids" / f"{name}.parquet")
    assert table.schema == text_ids.MAP_SCHEMA
    ids = table["id"].to_pylist()
    assert ids == sorted(set(ids))
    return dict(zip(ids, table["text"].to_pylist(), strict=True))


def hashes(*texts):
    return {hash_text(text): text for text in texts}


@pytest.mark.parametrize("write", [write_log, write_one_csv])
def test_ids_that_are_text_become_hashes_and_maps_lead_back(tmp_path, write):
    log = write(tmp_path / "log", ROWS)
    data = prepare(duckdb_engine(log), tmp_path / "data")
    assert requests_in(data) == requests_of_rows(HASHED)
    assert map_of(data, "users") == hashes("u4", "ü1")
    assert map_of(data, "items") == hashes("i0", "i5", "i6")
    assert read_items(data).item_ids.tolist() == sorted(map_of(data, "items"))
    assert found_out(opened(log).files, opened(log).log_format) == [
        "user_id is text: numbers stand for it, and ids/users.parquet leads back",
        "item_id is text: numbers stand for it, and ids/items.parquet leads back",
    ]


def test_one_kind_of_ids_may_be_text_and_the_other_numbers(tmp_path):
    rows = [(user, number, *rest) for number, (user, _, *rest) in enumerate(ROWS)]
    rows = [*rows, (rows[1][0], 1, 0, "click")]
    data = prepare(duckdb_engine(write_log(tmp_path / "log", rows)), tmp_path / "data")
    hashed = [(hash_text(user), *rest) for user, *rest in rows]
    assert requests_in(data) == requests_of_rows(hashed)
    assert [path.name for path in (data / "ids").iterdir()] == ["users.parquet"]


@pytest.mark.parametrize("kind", ["uuid", "dictionary", "large_string", "string_view"])
def test_text_of_any_arrow_type_and_uuids_are_the_same_ids(tmp_path, kind):
    users = {row[0]: uuid.uuid5(uuid.NAMESPACE_DNS, row[0]) for row in ROWS}
    values = pa.array([str(users[row[0]]) for row in ROWS])
    if kind == "uuid":
        values = pa.array([users[row[0]].bytes for row in ROWS], pa.uuid())
    elif kind == "dictionary":
        values = values.dictionary_encode()
    else:
        values = values.cast(getattr(pa, kind)())
    log = write_log(tmp_path / "log", ROWS)
    table = pq.read_table(log / "0.parquet").set_column(0, "user_id", values)
    pq.write_table(table, log / "0.parquet")
    data = prepare(duckdb_engine(log), tmp_path / "data")
    assert map_of(data, "users") == hashes(*map(str, users.values()))


CATALOGUE = ["i6", "i5", "i0", "never shown"]


def write_items(folder, **columns):
    (folder / "items").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "items" / "a.parquet", row_group_size=3)
    (folder / "items" / "pictures").mkdir()
    (folder / "items" / "pictures" / "6.jpg").write_bytes(b"picture")
    return folder


def test_a_catalogue_of_text_becomes_numbers_with_the_log_and_is_in_the_map(tmp_path):
    given = write_items(tmp_path / "shop", title=list("abcd"), item_id=CATALOGUE, kind=[1, 2, 3, 4])
    log = write_log(tmp_path / "log", ROWS)
    data = prepare(duckdb_engine(log), tmp_path / "data", given)
    table = pq.read_table(data / "items" / "a.parquet")
    assert table.to_pydict() == {
        "title": list("abcd"),
        "item_id": [hash_text(text) for text in CATALOGUE],
        "kind": [1, 2, 3, 4],
    }
    assert (data / "items" / "pictures" / "6.jpg").read_bytes() == b"picture"
    assert map_of(data, "items") == hashes(*CATALOGUE)
    assert sorted(path.name for path in data.iterdir()) == [
        *("features.yaml", "ids", "items", "requests")
    ]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"item_id": CATALOGUE[1:]} | {"k": [1] * 3}, None),
        ({"item_id": ["i0", "i6"]}, "item_id must be in .*shop/items, got i5$"),
        ({"item_id": [1, 2]}, "a.parquet column item_id must be text as in the log, got int64"),
        ({"sku": ["a"]}, "a.parquet column item_id must be text as in the log, got sku"),
        ({"item_id": ["i0", ""]}, "must have an item_id in every row, got 1 rows without"),
        ({"item_id": ["i5"], "price": [{"low": 1}]}, "shop/items/a.parquet column price must be"),
    ],
)
def test_a_catalogue_that_does_not_go_with_a_log_of_text_is_refused(tmp_path, columns, complaint):
    given = write_items(tmp_path / "shop", **columns)
    log = write_log(tmp_path / "log", [row for row in ROWS if row[1] != "i6"])
    if complaint is None:
        prepare(duckdb_engine(log), tmp_path / "data", given)
        return
    with pytest.raises(InputError, match=complaint):
        prepare(duckdb_engine(log), tmp_path / "data", given)


def test_two_texts_of_one_hash_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_ids, "hash_text", len)
    log = write_log(tmp_path / "log", ROWS)
    with pytest.raises(
        InputError, match="user_id must be .*different hashes, got 'u4' and 'ü1', .* both 2"
    ):
        prepare(duckdb_engine(log), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_numbers_in_one_file_and_text_in_another_are_refused(tmp_path, name):
    log = write_log(tmp_path / "log", ROWS, ROWS)
    table = pq.read_table(log / "1.parquet")
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, [range(len(ROWS))]), log / "1.parquet")
    complaint = f"1.parquet column {name} must be numbers or text as in .*0.parquet, got the other"
    with pytest.raises(InputError, match=complaint):
        opened(log)


def test_a_file_of_nulls_alone_is_of_either_kind(tmp_path):
    log = write_log(tmp_path / "log", [(None, None, 3, "view")], ROWS)
    engine = duckdb_engine(log, bad_share=0.2)
    assert requests_in(prepare(engine, tmp_path / "data")) == requests_of_rows(HASHED)


def test_numbers_among_text_in_csv_are_refused_unless_all_is_said_to_be_text(tmp_path):
    users = ["12ab", "1234", "ab12", "34"]
    rows = [(users[n % 4], 1, 3 * n, kind) for n in range(24) for kind in ("view", "click")]
    cure = "; where all of user_id is text, text_ids says so$"
    for some in (rows, rows[2:]):
        log = write_one_csv(tmp_path / "log", some)
        with pytest.raises(InputError, match=f"where user_id is not a whole number.*{cure}"):
            prepare(duckdb_engine(log), tmp_path / "data")
    (tmp_path / "log" / "a.csv").unlink()
    write_csv(tmp_path / "log" / "a.csv", [("x", 1, 1, "view")])
    write_csv(tmp_path / "log" / "b.csv", rows)
    with pytest.raises(InputError, match=f"where user_id is not text that is no whole.*{cure}"):
        prepare(duckdb_engine(tmp_path / "log"), tmp_path / "data")
    (tmp_path / "log" / "a.csv").unlink()
    data = prepare(duckdb_engine(tmp_path / "log", text_ids=["user_id"]), tmp_path / "data")
    assert map_of(data, "users") == hashes(*users)
    with pytest.raises(InputError, match="text_ids must be columns of user_id, item_id, got user"):
        opened(tmp_path / "log", text_ids=["user"])


def test_text_that_is_no_utf_8_is_refused(tmp_path):
    log = write_log(tmp_path / "log", ROWS)
    table = pq.read_table(log / "0.parquet")
    pq.write_table(table, log / "0.parquet", compression="none", use_dictionary=False)
    whole = (log / "0.parquet").read_bytes()
    (log / "0.parquet").write_bytes(whole.replace("ü1".encode(), b"\xff\xff1"))
    with pytest.raises(InputError, match="0.parquet column user_id must be UTF-8 text"):
        prepare(duckdb_engine(log), tmp_path / "data")
