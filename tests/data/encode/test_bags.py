"""Bags in an encoded data set, against one value at a time."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.encode.test_kinds import encoded
from tests.helpers.kinds_market import NEW_TOPIC, add_columns, write_kinds_market
from tests.helpers.request_folders import parquet_files
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.encode import item_bags
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError


@pytest.fixture
def data(tmp_path) -> Path:
    return write_kinds_market(tmp_path / "market").data


def lists(folder: Path, name: str) -> list[list]:
    column = pa.concat_tables(map(pq.read_table, parquet_files(folder)))[name]
    return [bag or [] for bag in column.to_pylist()]


def number(value: str | int) -> int:
    return hash_text(value) if isinstance(value, str) else value


def rows_by_hand(counts: Counter, bags: list[list], min_count: int = 1) -> list[list[int]]:
    """Row 0 of what training has not shown, 1 of what it shows rarely, else one for each id."""
    known = sorted(number(value) for value, count in counts.items() if count >= min_count)
    own = {value: known.index(number(value)) + 2 for value in counts if number(value) in known}
    rare = dict.fromkeys(counts, 1) | own
    return [[rare.get(value, 0) for value in bag] for bag in bags]


def test_each_value_of_a_request_has_the_row_that_it_has_by_hand(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    shown = Counter(sum(lists(data / "requests" / "train", "likes"), []))
    for split in ("train", "test"):
        values = lists(data / "requests" / split, "likes")
        assert lists(out / "requests" / split, "request_bag/likes") == rows_by_hand(shown, values)
    assert NEW_TOPIC in sum(values, [])
    meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    assert meta["unseen"]["likes"] == sum(values, []).count(NEW_TOPIC)


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize(("name", "min_count"), [("tags", 1), ("topics", 1), ("tags", 100)])
def test_each_value_of_an_item_has_the_row_that_it_has_by_hand(
    name, min_count, block, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(item_bags, "BLOCK", block)
    add_settings = f"likes: {{kind: bag}}\ntags: {{min_count: {min_count}}}\n"
    (data / "features.yaml").write_text(add_settings, encoding="utf-8")
    out, table = encoded(data, tmp_path / "out"), pq.read_table(data / "items")
    bags = dict(zip(table["item_id"].to_pylist(), lists(data / "items", name), strict=True))
    shown: Counter = Counter()
    for column in ("candidate_item_ids", "behaviour_item_ids"):
        for item in sum(lists(data / "requests" / "train", column), []):
            shown.update(bags.get(item, []))
    assert min_count == 1 or min(shown.values()) < min_count
    items = EncodedRequests(out, "train").items
    found = np.split(items.bags[name].values, items.bags[name].offsets[1:-1])
    # An item that items/ does not know has an empty bag.
    by_hand = rows_by_hand(shown, [bags.get(i, []) for i in items.item_ids.tolist()], min_count)
    assert [part.tolist() for part in found] == by_hand
    assert any(item not in bags for item in items.item_ids.tolist())


def test_lengths_and_pooling_go_with_the_data(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    requests = sum((lists(data / "requests" / split, "likes") for split in ("train", "test")), [])
    of_items = {name: lists(data / "items", name) for name in ("tags", "topics")}
    for name, bags in {"likes": requests, **of_items}.items():
        assert meta["bag_lengths"][name] == pytest.approx(len(sum(bags, [])) / len(bags))
    known = Vocabularies.load(out / "vocabularies.safetensors")
    assert known.pooling == {"likes": "sum", "tags": "mean", "topics": "mean"}
    assert sorted(known.item_bag["tags"].texts.to_pylist()) == sorted(("new", "sale", "Neü", ""))


def test_later_requests_are_encoded_by_what_training_knows(data, tmp_path):
    both = encoded(data, tmp_path / "both")
    known = Vocabularies.load(both / "vocabularies.safetensors")
    add_columns(data / "items", lambda count, _: {"later": [[1]] * count})
    (data / "features.yaml").unlink()
    again = encoded(data, tmp_path / "again", ("test",), vocabularies=known)
    name = "request_bag/likes"
    found = [lists(out / "requests" / "test", name) for out in (both, again)]
    assert found[0] == found[1]
    items = [EncodedRequests(out, "test").items for out in (both, again)]
    for bag in ("tags", "topics"):
        assert items[0].bags[bag].values.tolist() == items[1].bags[bag].values.tolist()
    assert Vocabularies.load(again / "vocabularies.safetensors").pooling == known.pooling


def test_row_groups_count_what_is_in_bags(data, tmp_path, monkeypatch):
    monkeypatch.setattr("torchrec_mm.data.encode.writer.ROW_GROUP_BYTES", 4000)
    plain = EncodedRequests(encoded(data, tmp_path / "plain"), "train")
    many = pa.array([[7] * 500] * 60, pa.list_(pa.int64()))
    add_columns(data / "requests" / "train", lambda count, _: {"likes": many[:count]})
    longer = EncodedRequests(encoded(data, tmp_path / "longer"), "train")
    assert len(longer.groups) == len(longer) // 2 > len(plain.groups)  # 2000 bytes each


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("values", lambda v: np.where(np.arange(len(v)) == 3, 77, v).astype(np.int32), "must be r"),
        ("values", lambda v: v.astype(np.int64), "must be int32, got int64"),
        ("offsets", lambda o: o[:-1], "offsets.npy must cut"),
        ("offsets", lambda o: np.where(np.arange(len(o)) == 3, o[-1], o), "offsets.npy must cut"),
        ("offsets", lambda o: o + 1, "offsets.npy must cut"),
    ],
)
def test_bags_that_encoding_never_writes_are_refused(file, spoil, words, data, tmp_path):
    out = encoded(data, tmp_path / "out")
    path = out / "items" / f"bag-0.{file}.npy"
    np.save(path, spoil(np.load(path)))
    with pytest.raises(InputError, match=words):
        EncodedRequests(out, "train")


def test_a_row_of_a_request_that_there_is_not_is_refused(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    (part,) = parquet_files(out / "requests" / "train")
    table = pq.read_table(part)
    wrong = pa.array([[9]] * len(table), pa.list_(pa.int32()))
    name = "request_bag/likes"
    pq.write_table(table.set_column(table.column_names.index(name), name, wrong), part)
    requests = EncodedRequests(out, "train")
    with pytest.raises(InputError, match="column request_bag/likes must be rows of a table of 5, "):
        requests.read(requests.groups[0])
