"""Titles by id: only of those asked for, only where there is one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.data.titles import read_titles
from torchrec_mm.errors import InputError


def put_items(data, **columns):
    (data / "items").mkdir(parents=True)
    pq.write_table(pa.table(columns), data / "items" / "part.parquet")


def test_only_the_items_asked_for_that_have_a_title_are_named(tmp_path):
    put_items(tmp_path, item_id=[5, -6, 7, 8], title=["red shirt", None, "blue coat", ""])
    assert read_titles(tmp_path, np.array([-6, 5, 8, 99])) == {5: "red shirt"}


def test_items_without_titles_have_none(tmp_path):
    put_items(tmp_path, item_id=[5])
    assert read_titles(tmp_path, np.array([5])) == {}


def test_data_without_items_is_refused(tmp_path):
    with pytest.raises(InputError, match="items must be a folder of Parquet files"):
        read_titles(tmp_path, np.array([5]))
