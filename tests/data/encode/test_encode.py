"""The encoded data set against a plain-Python oracle, whatever the size of files and chunks."""

import json
import logging
import tracemalloc
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.request_folders import parquet_files
from tests.helpers.small_market import write_parquet, write_small_market
from torchrec_mm.columns import ahead, chunks
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.encode import spool, writer
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.kernels.build import SWITCH

MOST, MIN_COUNT = 5, 9
ITEMS = {"item_id": [1, 2, 3, -4], "shop": [10, 20, 20, 40]}
GOOD = {
    "user_id": [5, -6],
    "behaviour_item_ids": [[1, 2, 99], []],
    "candidate_item_ids": [[3], [1, -4]],
    "labels": [[1], [0, 1]],
    "city": [3, 4],
    "action": [[10, 20, 30], []],
}


@pytest.fixture
def market(tmp_path) -> Path:
    return write_small_market(tmp_path / "market").data


def encoded(data: Path, out: Path, splits=("train", "test"), **changes) -> Path:
    encode_folder(data, splits, out, **{"max_behaviours": MOST, "min_count": MIN_COUNT} | changes)
    return out


def rows_of(folder: Path) -> list[dict]:
    return pa.concat_tables(map(pq.read_table, parquet_files(folder))).to_pylist()


class Oracle:
    """The rules, one id at a time."""

    def __init__(self, data: Path) -> None:
        self.items = {row.pop("item_id"): row for row in rows_of(data / "items")}
        self.splits = {s: rows_of(data / "requests" / s) for s in ("train", "test")}
        for request in chain(*self.splits.values()):
            for name, value in request.items():
                if name in ("behaviour_item_ids", "action", "stars"):
                    request[name] = value[-MOST:]
        self.shown = Counter(chain(*(self.items_of(r) for r in self.splits["train"])))
        ids = {*self.items, *chain(*map(self.items_of, chain(*self.splits.values())))}
        self.item_ids = sorted(ids)

    def items_of(self, request: dict) -> list[int]:
        return request["candidate_item_ids"] + request["behaviour_item_ids"]

    def item_row(self, item: int) -> int:
        known = sorted(item for item, count in self.shown.items() if count >= MIN_COUNT)
        return known.index(item) + 2 if item in known else int(item in self.shown)

    def attribute_row(self, name: str, item: int) -> int:
        values = {self.items[i][name] for i in self.shown if i in self.items}
        return row_of(values, self.items[item][name]) if item in self.items else 0

    def request(self, request: dict) -> dict:
        train = self.splits["train"]
        users = {r["user_id"] for r in train}
        row = {
            "user_id": request["user_id"],
            "timestamp": request["timestamp"],
            "request/user_id": row_of(users, request["user_id"]),
            "candidates": [self.item_ids.index(i) for i in request["candidate_item_ids"]],
            "labels": request["labels"],
            "behaviours": [self.item_ids.index(i) for i in request["behaviour_item_ids"]],
        }
        for name in ("city", "page"):
            row[f"request/{name}"] = row_of({r[name] for r in train}, request[name])
        for name in ("action", "stars"):
            values = {*chain(*(r[name] for r in train))}
            row[f"behaviour/{name}"] = [row_of(values, value) for value in request[name]]
        return row


def row_of(values: set[int], value: int) -> int:
    return sorted(values).index(value) + 2 if value in values else 0


def test_every_request_and_item_is_what_one_id_at_a_time_gives(market, tmp_path):
    out, oracle = encoded(market, tmp_path / "out"), Oracle(market)
    for split, requests in oracle.splits.items():
        expected = [oracle.request(request) for request in requests]
        assert rows_of(out / "requests" / split) == expected
        lengths = [[len(r["candidates"]), len(r["behaviours"])] for r in expected]
        assert np.load(out / "requests" / split / "lengths.npy").tolist() == lengths
    meta = json.loads((out / "meta.json").read_text())
    assert np.load(out / "items" / "item_ids.npy").tolist() == oracle.item_ids
    rows = dict(zip(meta["item_features"], np.load(out / "items" / "rows.npy"), strict=True))
    assert rows["item_id"].tolist() == [oracle.item_row(item) for item in oracle.item_ids]
    for name in ("shop_id", "category_id"):
        expected = [oracle.attribute_row(name, item) for item in oracle.item_ids]
        assert rows[name].tolist() == expected
    created_at = np.load(out / "items" / "created_at.npy")
    times = [oracle.items.get(item, {}).get("created_at") for item in oracle.item_ids]
    unknown = ItemCatalogue.UNKNOWN_TIME
    assert created_at.tolist() == [unknown if time is None else time for time in times]


def test_the_meta_file_counts_what_is_there_and_what_is_on_row_0(market, tmp_path):
    out, oracle = encoded(market, tmp_path / "out"), Oracle(market)
    meta = json.loads((out / "meta.json").read_text())
    assert meta["request_features"] == ["user_id", "city", "page"]
    assert meta["item_features"] == ["item_id", "category_id", "shop_id"]
    assert meta["behaviour_item_features"] == meta["item_features"]
    assert meta["behaviour_features"] == ["action", "stars"]
    assert (meta["format"], meta["max_behaviours"]) == (1, MOST)
    for split, requests in oracle.splits.items():
        assert meta["splits"][split] == {
            "requests": len(requests),
            "impressions": sum(len(r["labels"]) for r in requests),
            "behaviours": sum(len(r["behaviour_item_ids"]) for r in requests),
            "clicks": sum(sum(r["labels"]) for r in requests),
        }
    everything = [*chain(*map(oracle.items_of, chain(*oracle.splits.values())))]
    assert meta["unseen"]["item_id"] == sum(oracle.item_row(i) == 0 for i in everything) > 0
    shops = [oracle.attribute_row("shop_id", i) for i in everything]
    assert meta["unseen"]["shop_id"] == shops.count(0) > 0
    vocabularies = Vocabularies.load(out / "vocabularies.safetensors")
    assert meta["vocabulary"] == vocabularies.fingerprint
    counts = Counter(chain(*(r["candidate_item_ids"] for r in oracle.splits["train"])))
    frequency = ItemFrequency.load(out / "item_frequency.safetensors")
    assert dict(zip(frequency.item_ids.tolist(), frequency.counts.tolist(), strict=True)) == counts


def test_size_of_chunks_files_and_row_groups_changes_nothing(market, tmp_path, monkeypatch):
    whole = encoded(market, tmp_path / "whole")
    table = pq.read_table(market / "requests" / "train" / "part.parquet")
    pq.write_table(table[:37], market / "requests" / "train" / "part.parquet", row_group_size=10)
    pq.write_table(table[37:], market / "requests" / "train" / "q.parquet", row_group_size=7)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 90)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 500)
    monkeypatch.setattr(writer, "GROUPS_PER_FILE", 2)
    pieces = encoded(market, tmp_path / "pieces")
    parts = parquet_files(pieces / "requests" / "train")
    assert [part.name for part in parts][:2] == ["part-00000.parquet", "part-00001.parquet"]
    groups = [pq.ParquetFile(part).num_row_groups for part in parts]
    assert groups[:-1] == [2] * (len(parts) - 1) and len(parts) > 2
    for split in ("train", "test"):
        assert rows_of(pieces / "requests" / split) == rows_of(whole / "requests" / split)
    for name in ("meta.json", "items/rows.npy", "vocabularies.safetensors"):
        assert (pieces / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("kernels", ["0", "1"])
def test_any_number_of_threads_with_kernels_or_without_writes_the_same(
    market, tmp_path, monkeypatch, kernels
):
    table = pq.read_table(market / "requests" / "train" / "part.parquet")
    pq.write_table(table, market / "requests" / "train" / "part.parquet", row_group_size=9)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 90)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 500)
    monkeypatch.setattr(writer, "GROUPS_PER_FILE", 2)
    whole = encoded(market, tmp_path / "whole")
    monkeypatch.setenv(SWITCH, kernels)
    for threads in (1, 4):
        monkeypatch.setattr(ahead.pa, "cpu_count", lambda threads=threads: threads)
        again = encoded(market, tmp_path / f"of {threads}")
        assert files_of(again) == files_of(whole)


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_nothing_but_the_data_set_is_left(market, tmp_path):
    out = encoded(market, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [
        "item_frequency.safetensors",
        "items",
        "meta.json",
        "requests",
        "vocabularies.safetensors",
    ]


def test_splits_may_come_in_any_order(market, tmp_path):
    one, other = (
        encoded(market, tmp_path / splits[0], splits)
        for splits in (("train", "test"), ("test", "train"))
    )
    metas = [json.loads((out / "meta.json").read_text()) for out in (one, other)]
    assert metas[0] == metas[1]
    assert files_of(one).keys() == files_of(other).keys()
    for name, content in files_of(one).items():
        assert name == "meta.json" or content == files_of(other)[name]


def test_row_groups_read_one_by_one_are_all_requests_in_order(market, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 500)
    monkeypatch.setattr(writer, "GROUPS_PER_FILE", 2)
    out, oracle = encoded(market, tmp_path / "out"), Oracle(market)
    data = EncodedRequests(out, "train")
    parts = [data.read(group) for group in data.groups]
    assert len(parts) > 4
    assert data.group_starts.tolist() == [part.rows[0] for part in parts]
    whole, expected = RequestArrays.concatenate(parts), oracle.splits["train"]
    assert whole.rows.tolist() == list(range(len(data))) == list(range(len(expected)))
    assert whole.user_ids.tolist() == [request["user_id"] for request in expected]
    lengths = np.stack([whole.candidates.lengths, whole.behaviours.lengths], axis=1)
    assert data.lengths.tolist() == lengths.tolist()
    assert whole.labels.tolist() == [*chain(*(request["labels"] for request in expected))]


def test_lengths_of_other_requests_are_refused(market, tmp_path):
    out = encoded(market, tmp_path / "out")
    lengths = out / "requests" / "train" / "lengths.npy"
    np.save(lengths, np.load(lengths)[1:])
    with pytest.raises(InputError, match="lengths.npy must hold one row a request .*, got"):
        EncodedRequests(out, "train")


def test_a_row_group_ends_with_the_request_that_fills_it(market, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 400)
    groups = row_groups(encoded(market, tmp_path / "out"))
    for group in groups[:-1]:
        assert group.nbytes >= 300  # list offsets and bitmaps are counted roughly
        assert group[:-1].nbytes < 500
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 90)
    monkeypatch.setattr(spool, "BLOCK", 7)  # a group goes on in the next block
    assert row_groups(encoded(market, tmp_path / "pieces")) == groups


def row_groups(out: Path) -> list[pa.Table]:
    (part,) = parquet_files(out / "requests" / "train")
    file = pq.ParquetFile(part)
    return [file.read_row_group(group) for group in range(file.num_row_groups)]


def test_the_row_group_is_read_in_pieces_that_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 100)
    write_parquet(tmp_path, {"a": list(range(50)), "b": [[row] * 9 for row in range(50)]})
    pieces = [table for table, _ in chunks.read_chunks(tmp_path / "part.parquet")]
    assert [piece.num_rows for piece in pieces] == [10] * 5
    assert pa.concat_tables(pieces)["a"].to_pylist() == list(range(50))


def test_damage_to_what_was_written_does_not_go_unnoticed(market, tmp_path):
    (part,) = parquet_files(encoded(market, tmp_path / "out") / "requests" / "train")
    content = bytearray(part.read_bytes())
    column = pq.read_metadata(part).row_group(0).column(0)
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="part-00000.parquet row group 0 could not be read: .*CRC"):
        list(chunks.read_chunks(part))
    requests = EncodedRequests(tmp_path / "out", "train")
    with pytest.raises(InputError, match="part-00000.parquet row group 0 must be readable: .*CRC"):
        requests.read(requests.groups[0])


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 2_000)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 5_000)
    long = {"behaviour_item_ids": [[1, 2] * 100, []], "action": [[10, 20] * 100, []]}
    peaks = []
    for times in (50, 400):
        data = small(tmp_path / str(times), **{n: v * times for n, v in (GOOD | long).items()})
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        encoded(data, tmp_path / f"out-{times}", ("train",), max_behaviours=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() == before
    # The larger data alone are 1.3 MB.
    assert peaks[1] < peaks[0] + 100_000


def test_under_given_vocabularies_nothing_is_learned(market, tmp_path):
    trained = encoded(market, tmp_path / "trained")
    vocabularies = Vocabularies.load(trained / "vocabularies.safetensors")
    frequency = ItemFrequency.load(trained / "item_frequency.safetensors")
    given = {"vocabularies": vocabularies, "frequency": frequency}
    again = encoded(market, tmp_path / "again", ("test",), **given)
    for name in ("vocabularies.safetensors", "item_frequency.safetensors"):
        assert (again / name).read_bytes() == (trained / name).read_bytes()
    metas = [json.loads((out / "meta.json").read_text()) for out in (trained, again)]
    assert metas[0]["vocabulary"] == metas[1]["vocabulary"]
    assert list(metas[1]["splits"]) == ["test"]
    theirs, ours = (rows_of(out / "requests" / "test") for out in (trained, again))
    ids = [np.load(out / "items" / "item_ids.npy") for out in (trained, again)]
    for before, after in zip(theirs, ours, strict=True):
        for name in ("candidates", "behaviours"):
            assert ids[0][before.pop(name)].tolist() == ids[1][after.pop(name)].tolist()
        assert before == after


def small(tmp_path: Path, items=ITEMS, test: dict | None = None, **changes) -> Path:
    write_parquet(tmp_path / "data" / "items", items)
    columns = {name: values for name, values in (GOOD | changes).items() if values is not None}
    write_parquet(tmp_path / "data" / "requests" / "train", columns)
    if test is not None:
        write_parquet(tmp_path / "data" / "requests" / "test", test)
    return tmp_path / "data"


@pytest.mark.parametrize("times", [[1, None], [None, 1]])
def test_times_are_kept_where_every_request_of_the_split_has_one(tmp_path, monkeypatch, times):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 1)
    data = small(tmp_path, timestamp=times, test=GOOD | {"timestamp": [8, 9]})
    out = encoded(data, tmp_path / "out")
    assert "timestamp" not in rows_of(out / "requests" / "train")[0]
    assert [row["timestamp"] for row in rows_of(out / "requests" / "test")] == [8, 9]
    assert not (out / "items" / "created_at.npy").exists()


@pytest.mark.parametrize(("min_count", "own"), [(1, [-4, 1, 2, 3, 99]), (2, [1]), (3, [])])
def test_an_item_seen_exactly_min_count_times_has_a_row_of_its_own(tmp_path, min_count, own):
    """Item 1 is there twice, once as a behaviour and once as a candidate; others once."""
    out = encoded(small(tmp_path), tmp_path / "out", ("train",), min_count=min_count)
    learned = Vocabularies.load(out / "vocabularies.safetensors").item["item_id"]
    assert learned.known_ids.tolist() == own


@pytest.mark.parametrize("split", ["train", "test"])
def test_items_of_another_clock_than_the_requests_are_refused(tmp_path, split):
    times = {"train": [[9, 5], [7, 8]], "test": [[7, 8], [5, 9]]}[split]
    items = ITEMS | {"created_at": [None, 10, 20, 99]}
    data = small(tmp_path, items, timestamp=times[0], test=GOOD | {"timestamp": times[1]})
    with pytest.raises(InputError, match="items/ column created_at .* 10 to 99 .* of 5 to 9$"):
        encoded(data, tmp_path / "out")
    write_parquet(data / "items", items | {"created_at": [None, 9, 20, 99]})
    assert encoded(data, tmp_path / "out").is_dir()


def test_what_only_the_test_shows_has_no_row_of_its_own_and_is_counted(tmp_path):
    shown = {"user_id": [5, 6], "city": [3, 77], "action": [[10, 88, 30], []]}
    out = encoded(small(tmp_path, test=GOOD | shown), tmp_path / "out")
    rows = rows_of(out / "requests" / "test")
    assert [row["request/user_id"] for row in rows] == [3, 0]
    assert [row["request/city"] for row in rows] == [2, 0]
    assert rows[0]["behaviour/action"] == [2, 0, 4]
    unseen = json.loads((out / "meta.json").read_text())["unseen"]
    assert [unseen[name] for name in ("user_id", "city", "action")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [[1], [0]]}, "labels must be as long as candidate_item_ids, row 1 has 1 and 2"),
        ({"labels": None}, "must have a column labels"),
        ({"candidate_item_ids": [[3], [1, 99]]}, "candidate_item_ids must hold ids of items/.*99"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(tmp_path, changes, words):
    data = small(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out", ("train",))
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_mistake_is_found_in_its_file_and_row_group(tmp_path):
    data = small(tmp_path)
    part = data / "requests" / "train" / "part.parquet"
    bad = pa.table({**GOOD, "labels": [[1], [0, 3]]}, schema=pq.read_schema(part))
    pq.write_table(bad, part.with_name("second.parquet"), row_group_size=1)
    with pytest.raises(InputError, match="second.parquet row group 1 from row 0 column labels"):
        encoded(data, tmp_path / "out", ("train",))


def test_a_column_of_another_type_in_a_later_file_is_refused_by_name(tmp_path):
    data = small(tmp_path)
    write_parquet(tmp_path / "other", GOOD | {"city": ["a", "b"]})
    train = data / "requests" / "train"
    (tmp_path / "other" / "part.parquet").rename(train / "second.parquet")
    words = "second.parquet column city must be int64 as in .*/part.parquet, got string"
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out", ("train",))
    write_parquet(tmp_path / "other", GOOD | {"user_id": [1.0, 2.0]})
    (tmp_path / "other" / "part.parquet").rename(train / "second.parquet")
    with pytest.raises(InputError, match="second.parquet column user_id must be int64, got double"):
        encoded(data, tmp_path / "out", ("train",))


def test_a_truncated_file_and_a_damaged_row_group_are_named(tmp_path):
    data = small(tmp_path, **{name: values * 500 for name, values in GOOD.items()})
    part = data / "requests" / "train" / "part.parquet"
    pq.write_table(pq.read_table(part), part, row_group_size=500, use_dictionary=False)
    whole = part.read_bytes()
    offset = pq.read_metadata(part).row_group(1).column(0).data_page_offset
    part.write_bytes(whole[:offset] + b"\xff" * 200 + whole[offset + 200 :])
    with pytest.raises(InputError, match="part.parquet row group 1 could not be read"):
        encoded(data, tmp_path / "out", ("train",))
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="part.parquet must be a readable Parquet file"):
        encoded(data, tmp_path / "out", ("train",))


@pytest.mark.parametrize("left_out", ["city", "action"])
def test_a_column_that_training_had_is_missed_by_name(tmp_path, left_out):
    data = small(tmp_path, test=GOOD | {})
    out = encoded(data, tmp_path / "out", ("train",))
    vocabularies = Vocabularies.load(out / "vocabularies.safetensors")
    test = {name: values for name, values in GOOD.items() if name != left_out}
    write_parquet(data / "requests" / "test", test)
    words = f"must have the column {left_out} that the ranker was trained with"
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "again", ("test",), vocabularies=vocabularies)
    write_parquet(data / "items", {"item_id": ITEMS["item_id"]})
    with pytest.raises(InputError, match="items/ must have the column shop that"):
        encoded(data, tmp_path / "again", ("train",), vocabularies=vocabularies)


def test_columns_that_training_did_not_have_are_named_and_not_used(tmp_path, caplog):
    data = small(tmp_path, test=GOOD)
    trained = encoded(data, tmp_path / "out")
    vocabularies = Vocabularies.load(trained / "vocabularies.safetensors")
    later = {"note": [b"a", b"b"], "price": [0.5, 1.5]}
    write_parquet(data / "requests" / "test", GOOD | later)
    write_parquet(data / "items", ITEMS | {"brand": ["a", "b", "c", "d"]})
    with caplog.at_level(logging.WARNING):
        again = encoded(data, tmp_path / "again", ("test",), vocabularies=vocabularies)
    assert rows_of(again / "requests" / "test") == rows_of(trained / "requests" / "test")
    words = "columns that the model was not trained with are not used"
    assert [record.getMessage() for record in caplog.records] == [
        f"{data / 'requests' / 'test'} {words}: note, price",
        f"{data / 'items'} {words}: brand",
    ]
    with pytest.raises(InputError, match="test/part.parquet column note must be int64 or bool or"):
        encoded(data, tmp_path / "new", ("test", "train"))


def test_a_column_of_the_test_alone_is_missed_in_training(tmp_path):
    data = small(tmp_path, test=GOOD | {"hour": [1, 2]})
    with pytest.raises(InputError, match="requests/train must have a column hour, got user_id"):
        encoded(data, tmp_path / "out")


def test_what_cannot_be_encoded_at_all_is_refused(tmp_path):
    data = small(tmp_path, test=GOOD)
    with pytest.raises(InputError, match="splits must hold train, got test"):
        encoded(data, tmp_path / "out", ("test",))
    with pytest.raises(InputError, match="valid must be a folder of Parquet files"):
        encoded(data, tmp_path / "out", ("train", "valid"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="out exists already"):
        encoded(data, tmp_path / "out")
