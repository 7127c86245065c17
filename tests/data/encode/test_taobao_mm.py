"""TAOBAO-MM's tables become one request a user, whoever is missing where."""

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.encode import main
from tests.columns.test_files import folder_of
from tests.helpers.request_folders import parquet_files
from torchrec_mm.columns import chunks
from torchrec_mm.data.encode.taobao_mm_files import VECTORS, table_files
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError

INT8S, INT64S = pa.list_(pa.int8()), pa.list_(pa.int64())
SAMPLES = pa.schema([("label_0", INT8S), ("129_1", pa.int64()), ("205", pa.int64())])
USERS = pa.schema(
    [(name, pa.int64()) for name in ("129_1", *(f"130_{i}" for i in range(1, 6)))]
    + [("150_2_180", INT64S), ("151_2_180", INT64S)]
)
ITEMS = pa.schema([(name, pa.int64()) for name in ("205", "206", "213", "214")])
BIG = 2**62

ITEM_ROWS = [(1, 10, 5, 6), (-2, 20, 5, 0), (3, 0, 7, 8), (BIG, 10, 5, 6)]
# Users 7 and -8 alternate; user 9 has no features.
TRAIN = [(7, 1, 0), (-8, -2, 1), (7, 3, 1), (-8, BIG, 0), (9, 1, 1)]
TEST = [(7, 1, 0), (7, 44, 1)]
# Users 5 and 6 have no samples. Item 30 is no candidate; 0 is no item; 3 has its category from
# here. The category of 31 is not known at first.
TRAIN_USERS = [
    (5, [1], [10]),
    (6, [1], [10]),
    (-8, [30, 1, 0, 3, 31], [11, 12, 99, 13, 0]),
    (7, [30, 30, 31], [11, 14, 16]),
]
TEST_USERS = [(7, [30, 50, -2], [11, 15, 20])]


def write(path: Path, schema: pa.Schema, rows: list[tuple], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in schema.names]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.table(arrays, schema=schema), path, **options)


def sample(user: int, item: int, label: int) -> tuple:
    return [1 - label, label], user, item


def features(user: int, items: list[int], categories: list[int]) -> tuple:
    return user, user + 1, 3, 4, 5, 0, items, categories


def write_tables(data: Path) -> Path:
    for split, samples, users in (("train", TRAIN, TRAIN_USERS), ("test", TEST, TEST_USERS)):
        write(data / f"{split}_samples.parquet", SAMPLES, [sample(*row) for row in samples])
        write(data / f"{split}_user_features.parquet", USERS, [features(*row) for row in users])
    write(data / "item_features.parquet", ITEMS, ITEM_ROWS)
    return data


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tables(tmp_path / "data")


def encoded(data: Path, out: Path, *flags: str) -> Path:
    main(["--source", "taobao_mm", "--data", str(data), "--run_dir", str(out), *flags])
    return out


def requests_of(out: Path, split: str) -> list[dict]:
    """Requests with items by id again."""
    ids = np.load(out / "items" / "item_ids.npy")
    files = parquet_files(out / "requests" / split)
    rows = [*chain(*(pq.read_table(file).to_pylist() for file in files))]
    for row in rows:
        for name in ("candidates", "behaviours"):
            row[name] = ids[row[name]].tolist()
    return rows


def test_a_user_of_a_split_is_a_request(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    rows = requests_of(out, "train")
    assert [row["user_id"] for row in rows] == [-8, 7, 9]
    assert [row["candidates"] for row in rows] == [[-2, BIG], [1, 3], [1]]
    assert [row["labels"] for row in rows] == [[1, 0], [0, 1], [1]]
    assert [row["behaviours"] for row in rows] == [[30, 1, 3, 31], [30, 30, 31], []]
    (row,) = requests_of(out, "test")
    assert (row["user_id"], row["candidates"], row["labels"]) == (7, [1, 44], [0, 1])
    assert row["behaviours"] == [30, 50, -2]
    meta = json.loads((out / "meta.json").read_text())
    sizes = {"requests": 3, "impressions": 5, "behaviours": 7, "clicks": 3}
    assert meta["splits"]["train"] == sizes
    assert meta["notes"] == {"users_without_features": 1, "users_without_samples": 2}


def test_features_have_a_row_for_each_value_but_0(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    rows = requests_of(out, "train")
    assert [row["request/user_id"] for row in rows] == [2, 3, 4]
    assert [row["request/130_1"] for row in rows] == [2, 3, 0]
    assert [row["request/130_2"] for row in rows] == [2, 2, 0]
    assert [row["request/130_5"] for row in rows] == [0, 0, 0]
    meta = json.loads((out / "meta.json").read_text())
    assert meta["request_features"] == ["user_id", "130_1", "130_2", "130_3", "130_4", "130_5"]
    assert meta["unseen"]["130_5"] == 4 and meta["unseen"]["130_1"] == 1


def test_an_item_has_one_category_and_the_table_of_items_knows_it_best(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    meta = json.loads((out / "meta.json").read_text())
    assert meta["item_features"] == ["item_id", "213", "214", "category"]
    assert meta["behaviour_item_features"] == ["item_id", "category"]
    assert meta["behaviour_features"] == []
    ids = np.load(out / "items" / "item_ids.npy").tolist()
    assert ids == [-2, 1, 3, 30, 31, 44, 50, BIG]
    category, attribute = (
        dict(zip(ids, np.load(out / "items" / "rows.npy")[number].tolist(), strict=True))
        for number in (3, 2)
    )
    # Known from items: -2, 1, BIG; known from behaviours: 3, 30, 31 and, in testing alone, 50.
    values = Vocabularies.load(out / "vocabularies.safetensors").item["category"].known_ids
    assert values.tolist() == [10, 11, 13, 16, 20]
    assert category == {-2: 6, 1: 2, 3: 4, 30: 3, 31: 5, 44: 0, 50: 0, BIG: 2}
    assert attribute == {-2: 0, 1: 2, 3: 3, 30: 0, 31: 0, 44: 0, 50: 0, BIG: 2}
    # Some behaviours say 12 of item 1, and 14 of item 30.
    assert meta["attribute_disagreements"] == {"category": 2}
    # Of candidates alone, as behaviours do not have these: 44 once, and -2 once without 214.
    assert (meta["unseen"]["213"], meta["unseen"]["214"]) == (1, 2)


@pytest.mark.parametrize("values", [1, 2_000_000])  # lists with 0 by themselves, or with others
def test_only_known_items_count_as_the_newest_behaviours(data, tmp_path, monkeypatch, values):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", values)
    out = encoded(data, tmp_path / "out", "--max_behaviours", "3")
    assert [row["behaviours"] for row in requests_of(out, "train")] == [
        [1, 3, 31],
        [30, 30, 31],
        [],
    ]
    two = encoded(data, tmp_path / "two", "--max_behaviours", "2")
    rows = requests_of(two, "train")
    assert [row["behaviours"] for row in rows] == [[3, 31], [30, 31], []]


def test_rare_items_share_a_row(data, tmp_path):
    out = encoded(data, tmp_path / "out", "--min_count", "3")
    ids = np.load(out / "items" / "item_ids.npy").tolist()
    rows = dict(zip(ids, np.load(out / "items" / "rows.npy")[0].tolist(), strict=True))
    assert rows == {-2: 1, 1: 2, 3: 1, 30: 3, 31: 1, 44: 0, 50: 0, BIG: 1}


def test_parts_and_pieces_change_nothing(data, tmp_path, monkeypatch):
    whole = encoded(data, tmp_path / "whole")
    parts = tmp_path / "parts"
    for split, samples, users in (("train", TRAIN, TRAIN_USERS), ("test", TEST, TEST_USERS)):
        for part, row in enumerate(samples):
            write(parts / f"{split}_samples" / f"{part}.parquet", SAMPLES, [sample(*row)])
        rows = [features(*row) for row in users]
        write(parts / f"{split}_user_features-0.parquet", USERS, rows[:2], row_group_size=1)
        write(parts / f"{split}_user_features-1.parquet", USERS, rows[2:])
    for part, row in enumerate(ITEM_ROWS):
        write(parts / "item_features" / f"{part}.parquet", ITEMS, [row])
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 1)
    again = encoded(parts, tmp_path / "again")
    assert (again / "meta.json").read_bytes() == (whole / "meta.json").read_bytes()
    for split in ("train", "test"):
        assert requests_of(again, split) == requests_of(whole, split)


def test_a_split_is_encoded_under_the_vocabularies_of_another(data, tmp_path):
    whole = encoded(data, tmp_path / "whole")
    test = encoded(data, tmp_path / "test", "--splits", "[test]", "--vocabulary", str(whole))
    assert requests_of(test, "test") == requests_of(whole, "test")
    metas = [json.loads((out / "meta.json").read_text()) for out in (whole, test)]
    assert metas[0]["vocabulary"] == metas[1]["vocabulary"]
    assert list(metas[1]["splits"]) == ["test"]


def test_many_users_and_scattered_samples_find_each_other(tmp_path):
    rng = np.random.default_rng(0)
    users = rng.choice(2**40, 300, replace=False) - 2**39
    samples = [(int(rng.choice(users[:280])), int(rng.integers(1, 50)), 1) for _ in range(2000)]
    data = write_tables(tmp_path / "data")
    write(data / "train_samples.parquet", SAMPLES, [sample(*s) for s in samples], row_group_size=99)
    rows = [features(int(user), [], []) for user in users[20:]]
    write(data / "train_user_features.parquet", USERS, rows)
    out = encoded(data, tmp_path / "out")
    requests = requests_of(out, "train")
    order = [*users[20:280], *sorted(users[:20])]
    sampled = {user for user, _, _ in samples}
    assert [r["user_id"] for r in requests] == [user for user in order if user in sampled]
    for request in requests:
        mine = [item for user, item, _ in samples if user == request["user_id"]]
        assert request["candidates"] == mine


@pytest.mark.parametrize(
    ("file", "schema", "rows", "words"),
    [
        ("train_samples", SAMPLES, [([1, 1], 7, 1)], r"label_0 must be \[1, 0\] or \[0, 1\], got"),
        ("train_samples", SAMPLES, [([1], 7, 1)], "label_0 must hold lists of 2, got one of 1"),
        ("test_samples", SAMPLES, [], "test_samples.parquet must hold at least one sample, got 0"),
        ("train_user_features", USERS, [features(7, [1], [])], "row 0 has 0 and 1"),
        ("train_user_features", USERS, [features(7, [], [])] * 2, "129_1 must be unique, got 7"),
        ("item_features", ITEMS, [(1, 2, 3, 4)] * 2, "205 must be unique, got 1 more than once"),
        ("item_features", SAMPLES, [([1, 0], 7, 1)], "must have a column 206"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(data, tmp_path, file, schema, rows, words):
    write(data / f"{file}.parquet", schema, rows)
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_types_are_checked_in_every_file_before_a_row_is_read(data, tmp_path):
    (data / "train_samples.parquet").rename(data / "train_samples-0.parquet")
    double = pa.schema([("label_0", INT8S), ("129_1", pa.float64()), ("205", pa.int64())])
    write(data / "train_samples-1.parquet", double, [])
    with pytest.raises(InputError, match="samples-1.parquet column 129_1 must be int64, got doubl"):
        encoded(data, tmp_path / "out")


def names(data: Path, name: str) -> list[str]:
    return [str(file.relative_to(data)) for file in table_files(data, name)]


@pytest.mark.parametrize(
    "files",
    [
        ["t.parquet"],
        ["t/a.parquet", "t/b.parquet", "t/_SUCCESS"],
        ["t-0.parquet", "t-1.parquet", "t-10.parquet"],
        ["t_00000-of-00002.parquet", "t_00001-of-00002.parquet"],
        ["t.7.parquet"],
    ],
)
def test_a_table_is_a_file_a_folder_or_numbered_parts(tmp_path, files):
    folder_of(tmp_path, *files, "s.parquet", "s_t.parquet", ".t-2.parquet", "notes.txt")
    assert names(tmp_path, "t") == [file for file in files if "SUCCESS" not in file]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["t.parquet", "t_smoke.parquet"], "t.parquet, t_smoke.parquet"),
        (["t.parquet", "t-0.parquet"], "t-0.parquet, t.parquet"),
        (["t.parquet", "t/a.parquet"], "t, t.parquet"),
        (["t/a.parquet", "t_old/a.parquet"], "t, t_old"),
        (["t/a.parquet", "t/b.csv"], "b.csv"),
        (["t.parquet", "t.parquet.bak"], "t.parquet, t.parquet.bak"),
        (["t-0.parquet", "t_0.parquet"], "t-0.parquet, t_0.parquet"),
        (["t-0.parquet", "t-00.parquet"], "t-0.parquet, t-00.parquet"),
        (["t-0-of-2.parquet"], "t-0-of-2.parquet"),
        (["t-0-of-2.parquet", "t-1-of-3.parquet"], "t-0-of-2.parquet, t-1-of-3.parquet"),
        (["t.PARQUET"], "t.PARQUET"),
        (["t.csv"], "t.csv"),
        (["t_smoke.parquet"], "t_smoke.parquet"),
        ([], "none of them"),
    ],
)
def test_what_else_begins_like_a_table_is_refused_by_name(tmp_path, files, named):
    with pytest.raises(InputError, match=f"got {named}"):
        names(folder_of(tmp_path, *files), "t")


def test_no_table_is_named_like_the_beginning_of_another():
    tables = [VECTORS, "item_features"]
    tables += [f"{split}_{name}" for split in ("train", "test") for name in ("samples", "user_")]
    assert not [(a, b) for a in tables for b in tables if a != b and b.startswith(a)]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="data must be a folder of the tables of TAOBAO-MM: .*No"):
        table_files(tmp_path / "data", "t")


def test_a_subset_kept_beside_a_table_is_refused(data, tmp_path):
    shutil.copy(data / "train_samples.parquet", data / "train_samples_smoke.parquet")
    with pytest.raises(InputError, match="nothing else that begins like it, got train_samples.pa"):
        encoded(data, tmp_path / "out")


def test_a_missing_table_is_named(data, tmp_path):
    (data / "test_samples.parquet").unlink()
    with pytest.raises(InputError, match="data must hold test_samples.parquet or .* none of them"):
        encoded(data, tmp_path / "out")
