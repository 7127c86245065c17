"""Requests that come a few at a time, in files of bounded size."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.data.prepare import request_parts
from torchrec_mm.data.prepare.request_parts import RequestParts


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(request_parts, "GROUP_ROWS", 10)
    monkeypatch.setattr(request_parts, "PART_GROUPS", 3)


@pytest.mark.parametrize("rows", [1, 30, 67])
@pytest.mark.parametrize("step", [1, 7, 45])
def test_rows_keep_their_order_in_full_row_groups_and_parts(tmp_path, rows, step):
    numbers = np.arange(rows)
    with RequestParts(tmp_path / "train") as parts:
        for at in range(0, rows, step):
            parts.add(pa.table({"user_id": numbers[at : at + step]}))
    files = sorted((tmp_path / "train").iterdir())
    tables = [pq.read_table(file) for file in files]
    assert np.array_equal(pa.concat_tables(tables)["user_id"], numbers)
    assert [table.num_rows for table in tables[:-1]] == [30] * (len(files) - 1)
    groups = pq.ParquetFile(files[0]).metadata
    assert [groups.row_group(g).num_rows for g in range(groups.num_row_groups)][:-1] == [10] * (
        groups.num_row_groups - 1
    )


def test_after_a_failure_nothing_more_is_written(tmp_path):
    with pytest.raises(OSError, match="full"), RequestParts(tmp_path / "train") as parts:
        parts.add(pa.table({"user_id": [1, 2]}))
        raise OSError("full")
    assert list((tmp_path / "train").iterdir()) == []


def test_without_a_row_no_file_is_made(tmp_path):
    with RequestParts(tmp_path / "train") as parts:
        parts.add(pa.table({"user_id": pa.array([], pa.int64())}))
    assert list((tmp_path / "train").iterdir()) == []
