"""Titles by id: only of those asked for, only where there is one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.data.contract.items import read_titles
from torchrec_mm.errors import InputError


def put_items(data, name="part.parquet", **columns):
    (data / "items").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), data / "items" / name, row_group_size=10)


def test_only_the_items_asked_for_that_have_a_title_are_named(tmp_path):
    put_items(tmp_path, item_id=[5, -6, 7, 8], title=["red shirt", None, "blue coat", ""])
    assert read_titles(tmp_path, np.array([-6, 5, 8, 99])) == {5: "red shirt"}


def test_items_without_titles_have_none(tmp_path):
    put_items(tmp_path, item_id=[5])
    assert read_titles(tmp_path, np.array([5])) == {}


def test_items_lie_in_any_file_and_row_group_and_in_any_width(tmp_path):
    texts = pa.array([f"item {n}" for n in range(60)])
    for kind, text, rows in (
        (pa.int8(), pa.string_view(), range(0, 20)),
        (pa.int64(), pa.large_string(), range(20, 40)),
        (pa.uint16(), None, range(40, 60)),
    ):
        title = texts[rows.start : rows.stop]
        title = title.dictionary_encode() if text is None else title.cast(text)
        put_items(tmp_path, f"{kind}.parquet", item_id=pa.array(rows, kind), title=title)
    assert read_titles(tmp_path, np.arange(60)) == {n: f"item {n}" for n in range(60)}
    wanted = [3, 4, 21, 39, 40, -1, 2**62]
    assert read_titles(tmp_path, np.array(wanted)) == {n: f"item {n}" for n in wanted[:5]}
    assert read_titles(tmp_path, np.array([], np.int64)) == {}


def test_row_groups_without_the_items_are_not_read(tmp_path):
    title = [f"{n:4}" * 2000 for n in range(60)]
    put_items(tmp_path, item_id=range(60), title=pa.array(title))
    file = tmp_path / "items" / "part.parquet"
    start = pq.read_metadata(file).row_group(2).column(1).dictionary_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + 50] = b"\xff" * 50
    file.write_bytes(content)
    assert read_titles(tmp_path, np.array([3, 50])) == {3: title[3], 50: title[50]}
    with pytest.raises(InputError, match="part.parquet row group 2 could not be read"):
        read_titles(tmp_path, np.array([25]))


def test_a_title_that_is_no_text_is_refused_by_file_and_row(tmp_path):
    titles = pa.array([b"good", b"t\xe9"]).view(pa.string())
    put_items(tmp_path, item_id=[5, 6], title=titles)
    with pytest.raises(InputError, match="parquet row group 0 .* title must be UTF-8.*index 1"):
        read_titles(tmp_path, np.array([6]))


def test_an_id_that_is_no_number_is_refused(tmp_path):
    put_items(tmp_path, item_id=["5"], title=["a"])
    with pytest.raises(InputError, match="part.parquet column item_id must be int64, got string"):
        read_titles(tmp_path, np.array([5]))
