"""Titles and pictures of items/: sorted, nullable, refused when there is nothing to go by."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from torchrec_mm.data.item_content import read_item_content
from torchrec_mm.errors import InputError


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


def write_items(data, ids=(30, -5, 7), titles=("c", "a", "b"), images=(3, 1, 2), parts=1):
    table = pa.table(
        {
            "item_id": pa.array(ids, pa.int64()),
            "title": pa.array(titles, pa.string()),
            "image": pa.array([None if i is None else png(i) for i in images], pa.binary()),
        }
    )
    (data / "items").mkdir()
    for part in range(parts):
        rows = table.take(list(range(part, table.num_rows, parts)))
        pq.write_table(rows, data / "items" / f"part-{part}.parquet")
    return data


@pytest.mark.parametrize("parts", [1, 3])
def test_titles_and_pictures_come_in_the_order_of_ids_whatever_the_files(tmp_path, parts):
    items = read_item_content(write_items(tmp_path, parts=parts), ("image", "text"), 8)
    assert items.item_ids.tolist() == [-5, 7, 30]
    assert items.by_modality["text"].load(np.arange(3)) == ["a", "b", "c"]
    assert items.by_modality["image"].load(np.arange(3))[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_null_and_blank_titles_are_missing(tmp_path):
    data = write_items(tmp_path, titles=(None, " \t", "b"))
    items = read_item_content(data, ("image", "text"), 8)
    assert items.by_modality["text"].present.tolist() == [False, True, False]
    assert items.by_modality["image"].present.all()


def test_pictures_may_lie_beside_the_file(tmp_path):
    (tmp_path / "items" / "shots").mkdir(parents=True)
    (tmp_path / "items" / "shots" / "a.png").write_bytes(png(9))
    table = pa.table({"item_id": [1, 2], "image_path": ["shots/a.png", None]})
    pq.write_table(table, tmp_path / "items" / "part-0.parquet")
    (content,) = read_item_content(tmp_path, ("image",), 8).by_modality.values()
    assert content.present.tolist() == [True, False]
    assert content.load(np.array([0]))[0, 0, 0, 0] == 9


def test_an_item_with_neither_title_nor_picture_is_refused_when_both_are_wanted(tmp_path):
    data = write_items(tmp_path, titles=("c", None, "b"), images=(3, None, None))
    complaint = "columns image and title must not both be null, got item_id -5"
    with pytest.raises(InputError, match=complaint):
        read_item_content(data, ("image", "text"), 8)
    assert read_item_content(data, ("text",), 8).by_modality["text"].present.sum() == 2


def test_a_modality_that_no_item_has_is_refused(tmp_path):
    data = write_items(tmp_path, images=(None, None, None))
    with pytest.raises(InputError, match="column image must hold a value for --modality image"):
        read_item_content(data, ("image", "text"), 8)


def test_an_id_given_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="item_id must be unique, got 7"):
        read_item_content(write_items(tmp_path, ids=(7, -5, 7)), ("text",), 8)


def test_a_title_of_the_wrong_type_is_refused(tmp_path):
    (tmp_path / "items").mkdir()
    table = pa.table({"item_id": [1], "title": [[1, 2]]})
    pq.write_table(table, tmp_path / "items" / "part-0.parquet")
    with pytest.raises(InputError, match="column title must be string"):
        read_item_content(tmp_path, ("text",), 8)
