"""Rows of impressions in the forms that people have."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.prepare.test_impressions import prepare, write
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.prepare.prepared import write_prepared
from torchrec_mm.errors import InputError

COLUMNS = {
    "user_id": [1, 1, 2, 1],
    "item_id": [10, 11, 10, 12],
    "label": [0, 1, 0, 0],
    "timestamp": [5, 8, 9, 11],
    "city": [3, 3, 7, 3],
}
CSV = "Label;user_id;item_id;timestamp; city\n0;1;10;5;3\n1;1;11;8;3\n0;2;10;9;7\n0;1;12;11;3\n"


def tables(prepared):
    return prepared.items, prepared.train, prepared.test


@pytest.fixture
def wanted(tmp_path):
    return tables(prepare(write(tmp_path / "wanted", **COLUMNS)))


def rows_of(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_csv_and_json_lines_give_what_parquet_gives(tmp_path, wanted):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "json").mkdir()
    lines = "\n".join(map(json.dumps, rows_of(COLUMNS)))
    (tmp_path / "json" / "a.jsonl").write_text(lines)
    by_csv, by_json = prepare(tmp_path / "csv"), prepare(tmp_path / "json")
    assert tables(by_csv) == wanted and tables(by_json) == wanted
    assert by_csv.notes[0] == "fields of CSV files are taken to be divided by ';'"


def test_columns_of_other_names_and_those_in_their_way_are_told_apart(tmp_path, wanted):
    columns = dict(COLUMNS)
    columns["uid"] = columns.pop("user_id")
    columns["user_id"] = ["shop"] * 4
    folder = write(tmp_path / "in", **columns)
    prepared = prepare(folder, columns={"user_id": "uid"})
    assert tables(prepared) == wanted
    assert prepared.notes[0] == "column user_id is left out: columns takes uid in its place"
    with pytest.raises(InputError, match="a.parquet must have a column uuid, got item_id, label"):
        prepare(folder, columns={"user_id": "uuid"})
    with pytest.raises(InputError, match="a.parquet must have a column when, got item_id, label"):
        prepare(folder, columns={"timestamp": "when"})
    with pytest.raises(InputError, match="columns must map some of user_id, item_id, label, tim"):
        prepare(folder, columns={"city": "town"})


def test_partitions_of_whole_numbers_are_features_and_others_are_left_out(tmp_path, wanted):
    for day, user in enumerate((1, 2)):
        rows = [row for row in rows_of(COLUMNS) if row["user_id"] == user]
        folder = tmp_path / "in" / f"day=2026-01-0{day + 1}" / f"city={rows[0].pop('city')}"
        folder.mkdir(parents=True)
        table = pa.Table.from_pylist(rows).select(["user_id", "item_id", "label", "timestamp"])
        pq.write_table(table, folder / "a.parquet")
    prepared = prepare(tmp_path / "in")
    assert tables(prepared) == wanted
    assert prepared.notes[0] == "column day is left out: folders name no whole numbers by it"


def test_times_may_be_dates_or_in_a_unit(tmp_path):
    seconds = [1_650_000_005, 1_650_000_008, 1_650_000_009, 1_650_000_012]
    wanted = tables(prepare(write(tmp_path / "s", **COLUMNS | {"timestamp": seconds})))
    millis = [1000 * second + 999 for second in seconds]
    by_unit = prepare(write(tmp_path / "ms", **COLUMNS | {"timestamp": millis}))
    assert tables(by_unit) == wanted
    assert by_unit.notes[0].startswith("timestamp is taken for milliseconds since 1970, 2022-04-15")
    dates = pa.array(millis, pa.timestamp("ms", "UTC"))
    assert tables(prepare(write(tmp_path / "date", **COLUMNS | {"timestamp": dates}))) == wanted
    with pytest.raises(InputError, match="timestamp_unit must be left out where .* holds dates"):
        prepare(tmp_path / "date", timestamp_unit="ms")


def test_bad_rows_up_to_the_share_are_left_out(tmp_path, wanted):
    columns = {name: [*values, values[0]] for name, values in COLUMNS.items()}
    folder = write(tmp_path / "in", **columns | {"item_id": [*COLUMNS["item_id"], None]})
    prepared = prepare(folder, bad_share=0.2)
    assert tables(prepared) == wanted
    told = "1 of 5 rows are bad and left out: 1 where item_id is missing (a.parquet row 5)"
    assert prepared.notes[-1] == told
    with pytest.raises(InputError, match="at most bad_share = 0.19 bad rows, got 1 of 5: 1 where"):
        prepare(folder, bad_share=0.19)


WRITTEN = ["features.yaml", "ids", "items", "requests"]
TEXTS = {
    "user_id": ["a", "a", "b"],
    "item_id": ["x", "y", "x"],
    "label": [0, 1, 0],
    "behaviour_item_ids": [["z"], ["x", "z"], []],
}


def test_ids_that_are_text_also_in_lists_become_hashes_and_maps_lead_back(tmp_path):
    prepared = prepare(write(tmp_path / "in", **TEXTS))
    numbers = {
        "user_id": [hash_text(text) for text in TEXTS["user_id"]],
        "item_id": [hash_text(text) for text in TEXTS["item_id"]],
        "label": TEXTS["label"],
        "behaviour_item_ids": [[hash_text(t) for t in ts] for ts in TEXTS["behaviour_item_ids"]],
    }
    assert tables(prepared) == tables(prepare(write(tmp_path / "numbers", **numbers)))
    write_prepared(tmp_path / "data", prepared)
    for name, texts in (("users", "ab"), ("items", "xyz")):
        found = pq.read_table(tmp_path / "data" / "ids" / f"{name}.parquet").to_pydict()
        ids = sorted(map(hash_text, texts))
        assert (found["id"], sorted(found["text"])) == (ids, list(texts))
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == WRITTEN


def test_a_catalogue_of_text_goes_with_them(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "more").mkdir()
    items = write(tmp_path / "shop" / "items", item_id=["w", "x", "y"], kind=[1, 2, 3])
    prepared = prepare(write(tmp_path / "in", **TEXTS), items=tmp_path / "shop")
    write_prepared(tmp_path / "data", prepared)
    assert read_items(tmp_path / "data").item_ids.tolist() == sorted(map(hash_text, "wxy"))
    texts = pq.read_table(tmp_path / "data" / "ids" / "items.parquet")["text"].to_pylist()
    assert sorted(texts) == list("wxyz")
    write(items, item_id=["w", "y"])
    with pytest.raises(InputError, match="item_id must be in .*shop/items, got x$"):
        prepare(write(tmp_path / "more" / "in", **TEXTS), items=tmp_path / "shop")


@pytest.mark.parametrize(
    ("lists", "complaint"),
    [
        ([["z"], [None], []], "behaviour_item_ids must not hold nulls, got 1"),
        ([["z"], [""], []], "behaviour_item_ids must not hold nulls, got 1"),
        ([["z"], None, []], "behaviour_item_ids must not be null"),
        ([[1], [2], []], "behaviour_item_ids must be list<.*string>, got list<.*int64>"),
    ],
)
def test_lists_that_are_not_of_the_same_text_are_refused(tmp_path, lists, complaint):
    with pytest.raises(InputError, match=complaint):
        prepare(write(tmp_path / "in", **TEXTS | {"behaviour_item_ids": lists}))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("user_id,item_id,label,behaviour_item_ids", "behaviour_item_ids must be a list, which C"),
        ("user_id,item_id,label,", "a.csv column 4 must have a name, or be left out"),
        ("user_id,item_id,label,city", "must have a column timestamp or behaviour_item_ids"),
        ("user_id,item_id,label,label", "must have one column label, got 'label', 'label'"),
    ],
)
def test_csv_that_cannot_be_rows_of_impressions_is_refused(tmp_path, header, complaint):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(f"{header}\n1,2,0,1\n")
    with pytest.raises(InputError, match=complaint):
        prepare(tmp_path / "in")


def test_files_of_other_columns_and_no_rows_are_refused(tmp_path):
    folder = write(tmp_path / "in", **COLUMNS)
    pq.write_table(pa.table(COLUMNS).drop_columns("city"), folder / "b.parquet")
    with pytest.raises(InputError, match="b.parquet must have the columns of a.parquet .user_id, "):
        prepare(folder)
    empty = write(tmp_path / "empty", **COLUMNS)
    pq.write_table(pa.table(COLUMNS).slice(0, 0), empty / "a.parquet")
    with pytest.raises(InputError, match="empty must hold at least one row, got 0"):
        prepare(empty)
