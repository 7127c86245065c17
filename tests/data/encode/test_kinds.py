"""Text, Booleans, numbers and nulls in an encoded data set, against one value at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.kinds_market import NEW_DEVICE, add_columns, write_kinds_market
from tests.helpers.request_folders import contents, parquet_files
from tests.helpers.small_market import write_small_market
from torchrec_mm.columns import ahead, chunks
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract import texts
from torchrec_mm.data.contract.features import NULL
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.normaliser import CLIP
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError

FEATURES = (
    *("request/city", "request/device", "request/premium", "behaviour/via"),
    *("impression/candidate_source", "impression/candidate_position"),
)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_kinds_market(tmp_path / "market").data


def encoded(data: Path, out: Path, splits=("train", "test"), **given) -> Path:
    encode_folder(data, splits, out, max_behaviours=50, **given)
    return out


def column(folder: Path, name: str) -> list:
    """All values of a column, those of lists one after another."""
    values = pa.concat_tables(map(pq.read_table, parquet_files(folder)))[name].to_pylist()
    return sum(values, []) if isinstance(values[0], list) else values


def number(value: str | bool | int | None) -> int:
    if value is None:
        return NULL
    return hash_text(value) if isinstance(value, str) else int(value)


def rows_by_hand(shown: list, values: list) -> list[int]:
    """Row 0 where training has not shown a value, else one for each, by their ids."""
    known = sorted({number(value) for value in shown})
    return [known.index(number(v)) + 2 if number(v) in known else 0 for v in values]


@pytest.mark.parametrize("feature", FEATURES)
def test_each_value_of_requests_has_the_row_that_it_has_by_hand(feature, data, tmp_path):
    out, name = encoded(data, tmp_path / "out"), feature.split("/")[1]
    shown = column(data / "requests" / "train", name)
    assert name == "candidate_position" or None in shown
    for split in ("train", "test"):
        values = column(data / "requests" / split, name)
        rows = column(out / "requests" / split, feature)
        assert rows == rows_by_hand(shown, values)
    if name == "device":
        assert {row for row, value in zip(rows, values, strict=True) if value == NEW_DEVICE} == {0}


@pytest.mark.parametrize("name", ["brand", "is_new"])
def test_each_value_of_items_has_the_row_that_it_has_by_hand(name, data, tmp_path):
    out = encoded(data, tmp_path / "out")
    table = pq.read_table(data / "items")
    values = dict(zip(table["item_id"].to_pylist(), table[name].to_pylist(), strict=True))
    train = data / "requests" / "train"
    shown = {*column(train, "candidate_item_ids"), *column(train, "behaviour_item_ids")}
    known = Vocabularies.load(out / "vocabularies.safetensors").item
    place = list(known).index(name)
    rows = np.load(out / "items" / "rows.npy")[place].tolist()
    ids = np.load(out / "items" / "item_ids.npy").tolist()
    by_hand = rows_by_hand([values[i] for i in shown if i in values], list(values.values()))
    of_items = dict(zip(values, by_hand, strict=True))
    # An item that items/ does not know is unseen, which is not null.
    assert rows == [of_items.get(item, 0) for item in ids]
    assert 0 in rows and NULL in known[name].known_ids


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_and_the_size_of_chunks_change_nothing(threads, data, tmp_path, monkeypatch):
    whole = encoded(data, tmp_path / "whole")
    for split in ("train", "test"):
        part = data / "requests" / split / "part.parquet"
        pq.write_table(pq.read_table(part), part, row_group_size=9)
    monkeypatch.setattr(ahead.pa, "cpu_count", lambda: threads)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 90)
    assert contents(encoded(data, tmp_path / "pieces")) == contents(whole)


def test_the_vocabularies_hold_the_texts_and_say_so_on_disk_too(data, tmp_path):
    learned = Vocabularies.load(encoded(data, tmp_path / "out") / "vocabularies.safetensors")
    for group, name in (("request", "device"), ("item", "brand"), ("behaviour", "via")):
        vocabulary = getattr(learned, group)[name]
        texts = vocabulary.texts.to_pylist()
        assert [number(text) for text in texts] == vocabulary.known_ids.tolist()
        assert None in texts
    assert learned.request["city"].texts is None


def robust(shown: list, values: list) -> list[float]:
    """NaN where null; else in interquartile ranges from the median of what training shows."""
    known = np.sort([float(value) for value in shown if value is not None])
    low, centre, high = (known[int(share * (len(known) - 1))] for share in (0.25, 0.5, 0.75))
    given = np.array([np.nan if value is None else float(value) for value in values])
    return np.clip((given - centre) / (high - low), -CLIP, CLIP).tolist()


@pytest.mark.parametrize(
    "feature",
    ["request_number/age", "request_number/temperature", "impression_number/candidate_discount"],
)
def test_each_number_of_requests_is_what_it_is_by_hand(feature, data, tmp_path):
    out, name = encoded(data, tmp_path / "out"), feature.split("/")[1]
    shown = column(data / "requests" / "train", name)
    for split in ("train", "test"):
        values = column(data / "requests" / split, name)
        found = column(out / "requests" / split, feature)
        assert found == pytest.approx(robust(shown, values), rel=1e-6, nan_ok=True)


def test_each_number_of_items_is_what_it_is_by_hand(data, tmp_path):
    out, table = encoded(data, tmp_path / "out"), pq.read_table(data / "items")
    ids, train = table["item_id"].to_pylist(), data / "requests" / "train"
    shown = {*column(train, "candidate_item_ids"), *column(train, "behaviour_item_ids")}
    numbers = np.load(out / "items" / "numbers.npy")
    rows = np.searchsorted(np.load(out / "items" / "item_ids.npy"), ids)
    for place, name in enumerate(["price", "weight_kg"]):
        values = dict(zip(ids, table[name].to_pylist(), strict=True))
        by_hand = robust([values[i] for i in shown if i in values], list(values.values()))
        assert numbers[rows, place].tolist() == pytest.approx(by_hand, rel=1e-6, nan_ok=True)
    unknown = np.delete(numbers, rows, axis=0)
    assert len(unknown) and np.isnan(unknown).all()


def test_later_requests_are_normalised_by_what_training_showed(data, tmp_path):
    both = encoded(data, tmp_path / "both")
    known = Vocabularies.load(both / "vocabularies.safetensors")
    again = encoded(data, tmp_path / "again", ("test",), vocabularies=known)
    name = "request_number/age"
    found = [column(out / "requests" / "test", name) for out in (both, again)]
    assert repr(found[0]) == repr(found[1])
    assert (again / "vocabularies.safetensors").read_bytes() == (
        both / "vocabularies.safetensors"
    ).read_bytes()
    other = replace(known.numbers["request/age"], scale=1.0)
    assert replace(known, numbers={"request/age": other}).fingerprint != known.fingerprint


def test_without_numbers_nothing_on_disk_speaks_of_them(tmp_path):
    out = encoded(write_small_market(tmp_path / "market").data, tmp_path / "out")
    assert "number" not in (out / "meta.json").read_text()
    assert not (out / "items" / "numbers.npy").exists()


@pytest.mark.parametrize(
    ("where", "name", "value", "words"),
    [
        ("requests/train", "age", 3.0, "requests/train column age must hold two values in"),
        ("requests/train", "age", None, "requests/train column age must hold values in training"),
        (
            "items",
            "price",
            7.0,
            "items/ column price must hold two values in training, got 7",
        ),
    ],
)
def test_a_number_that_never_changes_is_refused(where, name, value, words, data, tmp_path):
    add_columns(
        data / where,
        lambda count, _: {name: pa.array([value] * count, None if value else pa.float64())},
    )
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "words"),
    [(np.inf, r"must be in \[-5.0, 5.0\], got inf"), (5.1, "must be in .*, got 5.09")],
)
def test_numbers_that_encoding_never_writes_are_refused(number, words, data, tmp_path):
    out = encoded(data, tmp_path / "out")
    items = np.load(out / "items" / "numbers.npy")
    np.save(out / "items" / "numbers.npy", np.where(np.arange(len(items))[:, None] == 3, number, 0))
    with pytest.raises(InputError, match="numbers.npy must be float32, got float64"):
        EncodedRequests(out, "train")
    spoilt = np.full_like(items, number)
    np.save(out / "items" / "numbers.npy", spoilt)
    with pytest.raises(InputError, match=f"numbers.npy {words}"):
        EncodedRequests(out, "train")
    np.save(out / "items" / "numbers.npy", items)
    (part,) = parquet_files(out / "requests" / "train")
    table = pq.read_table(part)
    place = table.column_names.index("request_number/age")
    wrong = pa.array(np.full(len(table), number, np.float32))
    pq.write_table(table.set_column(place, "request_number/age", wrong), part)
    requests = EncodedRequests(out, "train")
    with pytest.raises(InputError, match=f"column request_number/age {words}"):
        requests.read(requests.groups[0])


def test_a_text_that_shares_its_id_with_one_of_training_is_refused(data, tmp_path, monkeypatch):
    known = Vocabularies.load(encoded(data, tmp_path / "out") / "vocabularies.safetensors")
    alike = {NEW_DEVICE: hash_text("phone")}
    monkeypatch.setattr(texts, "hash_text", lambda t: alike.get(t) or hash_text(t))
    with pytest.raises(InputError, match="column device must not hold both 'phone' and 'fridge'"):
        encoded(data, tmp_path / "again", ("test",), vocabularies=known)
    with pytest.raises(InputError, match="column device must not hold both 'phone' and 'fridge'"):
        encoded(data, tmp_path / "anew")
    assert not (tmp_path / "anew").exists()
