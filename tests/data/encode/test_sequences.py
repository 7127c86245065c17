"""Further behaviour sequences in an encoded data set, against one request at a time."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.kinds_market import add_columns
from tests.helpers.request_folders import contents, parquet_files
from tests.helpers.small_market import (
    EVENTS,
    ITEM_IDS,
    add_sequences,
    read_parquet,
    write_small_market,
)
from torchrec_mm.columns import ahead, chunks
from torchrec_mm.data.contract.describe import describe
from torchrec_mm.data.encode import writer
from torchrec_mm.data.encode.encode import encode_folder, encode_to_score
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.epoch import EpochOrder, compared
from torchrec_mm.errors import InputError

SPLITS = ("train", "test")


@pytest.fixture
def data(tmp_path) -> Path:
    market = write_small_market(tmp_path / "market")
    add_sequences(market)
    return market.data


def encoded(data: Path, out: Path, most: int = 50, **given) -> Path:
    encode_folder(data, SPLITS, out, max_behaviours=most, **given)
    return out


def items_in(out: Path, split: str, column: str) -> list[list[int]]:
    """Lists of item ids."""
    ids = np.load(out / "items" / "item_ids.npy")
    tables = map(pq.read_table, parquet_files(out / "requests" / split))
    lists = pa.concat_tables(tables)[column].to_pylist()
    return [ids[items].tolist() if items else [] for items in lists]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("most", [2, 50])
def test_the_newest_of_each_sequence_are_kept_in_their_order(most, event, split, data, tmp_path):
    given = read_parquet(data / "requests" / split)[f"{event}_item_ids"]
    out = encoded(data, tmp_path / "out", most)
    assert items_in(out, split, f"sequence/{event}") == [items[-most:] for items in given]
    requests = EncodedRequests(out, split)
    assert requests.sequences == EVENTS
    place = 2 + EVENTS.index(event)
    assert requests.lengths[:, place].tolist() == [min(len(items), most) for items in given]
    assert requests.sizes[f"sequence/{event}"] == sum(requests.lengths[:, place])


def test_items_of_all_sequences_count_towards_a_row_of_their_own(data, tmp_path):
    train = read_parquet(data / "requests" / "train")
    lists = [f"{kind}_item_ids" for kind in ("behaviour", "candidate", *EVENTS)]
    shown = [item for name in lists for items in train[name] for item in items]
    known = Vocabularies.load(
        encoded(data, tmp_path / "out", min_count=25) / "vocabularies.safetensors"
    ).item["item_id"]
    ids, counts = np.unique(shown, return_counts=True)
    assert known.known_ids.tolist() == ids[counts >= 25].tolist()
    assert known.rare_ids.tolist() == ids[counts < 25].tolist()
    frequency = ItemFrequency.load(tmp_path / "out" / "item_frequency.safetensors")
    of_candidates = sum(map(len, train["candidate_item_ids"]))
    assert frequency.counts.sum() == of_candidates  # of what was shown, and not of what was done


def test_threads_chunks_and_row_groups_change_nothing_that_is_read(data, tmp_path, monkeypatch):
    whole = encoded(data, tmp_path / "whole")
    part = data / "requests" / "train" / "part.parquet"
    pq.write_table(pq.read_table(part), part, row_group_size=9)
    monkeypatch.setattr(ahead.pa, "cpu_count", lambda: 4)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 90)
    assert contents(encoded(data, tmp_path / "pieces")) == contents(whole)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 600)
    small = EncodedRequests(encoded(data, tmp_path / "small"), "train")
    assert len(small.groups) > 5
    found = [small.read(group).sequences["cart"].lengths for group in small.groups]
    assert np.concatenate(found).tolist() == small.lengths[:, 2].tolist()


def test_a_model_knows_its_sequences(data, tmp_path):
    learned = Vocabularies.load(encoded(data, tmp_path / "out") / "vocabularies.safetensors")
    assert learned.sequences == EVENTS
    again = Vocabularies(learned.request, learned.item, learned.behaviour)
    assert again.fingerprint != learned.fingerprint
    requests, items = data / "requests" / "test", data / "items"
    given = {"max_behaviours": 50, "vocabularies": learned}
    add_columns(requests, lambda count, rng: {"view_item_ids": pa.array([["a"]] * count)})
    encode_to_score(requests, items, tmp_path / "scored", **given)
    meta = json.loads((tmp_path / "scored" / "meta.json").read_text())
    assert meta["sequences"] == [*EVENTS]
    table = pq.read_table(requests / "part.parquet").drop_columns(["cart_item_ids"])
    pq.write_table(table, requests / "part.parquet")
    with pytest.raises(InputError, match="test must have a column cart_item_ids, got"):
        encode_to_score(requests, items, tmp_path / "again", **given)


def without(data: Path, name: str) -> None:
    part = data / "requests" / "test" / "part.parquet"
    pq.write_table(pq.read_table(part).drop_columns([name]), part)


def replaced(data: Path, **columns: list) -> None:
    for split in SPLITS:
        add_columns(
            data / "requests" / split,
            lambda count, rng: {name: pa.array(value * count) for name, value in columns.items()},
        )


def said(data: Path, words: str) -> None:
    (data / "features.yaml").write_text(words, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: without(d, "cart_item_ids"), "test must have a column cart_item_ids, got"),
        (lambda d: replaced(d, cart_item_ids=[["a"]]), "column cart_item_ids must be list<"),
        (lambda d: replaced(d, cart_item_ids=[[1, None]]), "cart_item_ids must not hold nulls"),
        (lambda d: replaced(d, cart_item_ids=[[1], None][1:]), "cart_item_ids must not be null"),
        (
            lambda d: replaced(d, cart_behaviour_price=[[1]]),
            "requests/ column cart_behaviour_price must be left out: cart_item_ids has no",
        ),
        (
            lambda d: replaced(d, cart_price=[[1] * 99]),
            "column cart_price must be as long as behaviour_item_ids, row 0 has 99",
        ),
        (
            lambda d: said(d, "cart_item_ids: {kind: categorical}"),
            "features.yaml must say nothing of a behaviour sequence but ignore, got cart_item_ids",
        ),
    ],
)
def test_what_is_no_sequence_is_refused_by_name(spoil, words, data, tmp_path):
    spoil(data)
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out")


def test_a_sequence_may_be_ignored_and_a_number_called_like_one_is_none(data, tmp_path):
    said(data, "ignore: [cart_item_ids, passed_item_ids]")
    replaced(data, num_item_ids=[7])
    out = encoded(data, tmp_path / "out")
    meta = json.loads((out / "meta.json").read_text())
    assert "sequences" not in meta and "num_item_ids" in meta["request_features"]
    assert np.load(out / "requests" / "train" / "lengths.npy").shape == (60, 2)


def test_the_description_says_what_they_are(data):
    told = describe(data)["requests"]["cart_item_ids"]
    assert told.startswith("behaviours, list<int64>, 0.0% missing, ")
    assert int(told.split(" missing, ")[1].split()[0]) > len(ITEM_IDS) - 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lengths: lengths[:, :3], "must hold one row a request of the Parquet files, got"),
        (lambda lengths: lengths + [0, 0, 0, 1], "column sequence/passed must be as long as"),
        (lambda lengths: lengths - [0, 0, 9, 0], "must count at least 0 behaviours, got -"),
    ],
)
def test_lengths_that_are_not_those_of_the_lists_are_refused(spoil, words, data, tmp_path):
    path = encoded(data, tmp_path / "out") / "requests" / "train" / "lengths.npy"
    np.save(path, spoil(np.load(path)).astype(np.int32))
    with pytest.raises(InputError, match=words):
        requests = EncodedRequests(tmp_path / "out", "train")
        list(map(requests.read, requests.groups))


def test_items_that_there_are_not_are_refused(data, tmp_path):
    out = encoded(data, tmp_path / "out")
    (path,) = parquet_files(out / "requests" / "train")
    table = pq.read_table(path)
    lists = table["sequence/cart"].combine_chunks()
    beyond = pa.ListArray.from_arrays(lists.offsets, pa.array([999] * len(lists.flatten()), "i4"))
    place = table.column_names.index("sequence/cart")
    pq.write_table(table.set_column(place, "sequence/cart", beyond), path)
    requests = EncodedRequests(out, "train")
    with pytest.raises(InputError, match="sequence/cart must be numbers of items, out of .* 999"):
        requests.read(requests.groups[0])


def test_a_batch_ends_before_padding_all_sequences_takes_too_much():
    """Each counts as much as the longest of its request: the longest of several may be others."""
    lengths = np.array([[2, 3, 0, 9], [1, 0, 0, 0], [4, 5, 0, 1]], np.int32)
    candidates, behaviours = compared(lengths)
    assert candidates.tolist() == [2, 1, 4] and behaviours.tolist() == [27, 0, 15]
    assert compared(lengths[:, :2])[1].tolist() == [3, 0, 5]
    limits = BatchLimits(requests=3, attended=150, padded=3 * 12 * (32 + 26))
    order = EpochOrder(np.array([3]), lengths, limits, seed=None)
    assert order.ends(0).tolist() == [2, 3]
    short = EpochOrder(np.array([3]), lengths[:, :2], limits, seed=None)
    assert short.ends(0).tolist() == [3]
