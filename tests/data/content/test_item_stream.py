"""items/ in parts: every row once, whatever the row groups; what is wrong is named."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.columns import chunks
from torchrec_mm.data.content import item_parts
from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.errors import InputError

BOTH = ("image", "text")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(item_parts, "MAX_ROWS", 10)
    monkeypatch.setattr(item_parts, "MIN_ROWS", 10)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 9)  # three rows


def write(data: Path, name: str, ids, row_group_size: int, **columns) -> None:
    ids = list(ids)
    columns = columns or {
        "title": pa.array([None if i % 5 == 0 else f"title {i}" for i in ids], pa.string()),
        "image": pa.array([None if i % 3 == 0 else b"%d" % i for i in ids], pa.binary()),
    }
    (data / "items").mkdir(parents=True, exist_ok=True)
    table = pa.table({"item_id": pa.array(ids, pa.int64()), **columns})
    pq.write_table(table, data / "items" / f"{name}.parquet", row_group_size=row_group_size)


@pytest.fixture
def data(tmp_path) -> Path:
    """Row groups of 4 and a shorter last one, and one of 25, cut in three."""
    write(tmp_path, "a", range(100, 70, -1), 4)
    write(tmp_path, "b", range(25), 25)
    return tmp_path


def test_parts_cover_all_rows_once_in_file_order(data):
    stream = ItemStream(data, BOTH)
    ids = [stream.read(part).item_ids for part in stream.parts]
    assert np.concatenate(ids).tolist() == [*range(100, 70, -1), *range(25)]
    assert [len(part) for part in stream.parts] == [8, 8, 8, 6, 8, 8, 9]
    assert [part.first for part in stream.parts] == [0, 8, 16, 24, 30, 38, 46]
    assert [len(each) for each in ids] == [len(part) for part in stream.parts]
    assert stream.num_items == 55


def test_parts_may_be_read_in_any_order_and_hold_the_contents(data):
    stream = ItemStream(data, BOTH)
    for number in np.random.default_rng(0).permutation(2 * len(stream.parts)) // 2:
        rows = stream.read(stream.parts[number])
        for item, text, image in zip(rows.item_ids, rows.texts, rows.pictures, strict=True):
            assert text == (None if item % 5 == 0 else f"title {item}")
            assert image == (None if item % 3 == 0 else b"%d" % item)


def test_a_bit_that_has_changed_is_noticed(tmp_path):
    titles = pa.array([f"title {i}" for i in range(20)])
    (tmp_path / "items").mkdir()
    file = tmp_path / "items" / "a.parquet"
    pq.write_table(
        pa.table({"item_id": range(20), "title": titles}),
        file,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = bytearray(file.read_bytes())
    content[content.index(b"title 7") + 6] ^= 1
    file.write_bytes(content)
    stream = ItemStream(tmp_path, ("text",))
    with pytest.raises(InputError, match="a.parquet row group 0 could not be read: .*CRC"):
        stream.read(stream.parts[0])


def test_large_rows_make_smaller_parts(data, monkeypatch):
    size = pq.read_metadata(data / "items" / "b.parquet").row_group(0).total_byte_size
    monkeypatch.setattr(item_parts, "MAX_BYTES", size // 5 + 1)
    of_b = [part for part in ItemStream(data, BOTH).parts if part.file.name == "b.parquet"]
    assert [len(part) for part in of_b] == [5] * 5


def test_a_small_catalogue_is_cut_finer(tmp_path, monkeypatch):
    monkeypatch.setattr(item_parts, "MAX_ROWS", 1000)
    write(tmp_path, "a", range(1280), 10_000)
    assert {len(part) for part in ItemStream(tmp_path, BOTH).parts} == {20}
    monkeypatch.setattr(item_parts, "MIN_ROWS", 640)
    assert [len(part) for part in ItemStream(tmp_path, BOTH).parts] == [640, 640]


def test_blank_titles_are_missing_and_paths_are_relative_to_items(tmp_path):
    texts = pa.array(["a", " \t", "", None])
    images = pa.array([None, b"x", None, b"y"], pa.binary())
    paths = pa.array(["a.png", None, None, "b.png"])
    write(tmp_path, "a", range(4), 4, title=texts, image=images, image_path=paths)
    stream = ItemStream(tmp_path, BOTH)
    rows = stream.read(stream.parts[0])
    assert rows.texts == ["a", None, None, None]
    assert rows.pictures == [tmp_path / "items" / "a.png", b"x", None, b"y"]
    assert rows.present("text").tolist() == [True, False, False, False]


def test_only_wanted_columns_are_read(tmp_path):
    write(tmp_path, "a", range(4), 4, title=pa.array(["a"] * 4))
    stream = ItemStream(tmp_path, ("text",))
    rows = stream.read(stream.parts[0])
    assert rows.pictures is None and rows.texts == ["a"] * 4
    with pytest.raises(InputError, match="column image or image_path for modality image, got"):
        ItemStream(tmp_path, BOTH)


def test_a_column_that_is_written_otherwise_is_not_passed_over(tmp_path):
    columns = {"title": pa.array(["a"] * 4), "Image_path": pa.array(["b.png"] * 4)}
    write(tmp_path, "a", range(4), 4, **columns)
    with pytest.raises(InputError, match="items column 'Image_path' must be named image_path"):
        ItemStream(tmp_path, ("text",))


def test_other_files_or_cuts_have_another_fingerprint(data, monkeypatch):
    before = ItemStream(data, BOTH).fingerprint
    assert before == ItemStream(data, BOTH).fingerprint
    os.utime(data / "items" / "a.parquet", ns=(1, 1))
    touched = ItemStream(data, BOTH).fingerprint
    monkeypatch.setattr(item_parts, "MAX_ROWS", 7)
    assert len({before, touched, ItemStream(data, BOTH).fingerprint}) == 3


def test_ids_given_twice_and_wrong_types_are_refused(tmp_path):
    write(tmp_path, "a", range(4), 4)
    write(tmp_path, "b", [7, 3], 4)
    with pytest.raises(InputError, match="item_id must be unique, got 3"):
        ItemStream(tmp_path, BOTH)
    write(tmp_path, "b", [7, 8], 4, title=pa.array([1, 2]), image=pa.array([b"", b""]))
    with pytest.raises(InputError, match="b.parquet column title must be string, got int64"):
        ItemStream(tmp_path, BOTH)
    no_text = pa.array([b"good", b"t\xe9"]).view(pa.string())
    write(tmp_path, "b", [7, 8], 4, title=no_text, image=pa.array([b"", b""]))
    stream = ItemStream(tmp_path, BOTH)
    words = "b.parquet row groups 0 to 0 column title must be UTF-8 text: .*index 1"
    with pytest.raises(InputError, match=words):
        stream.read(stream.parts[-1])
