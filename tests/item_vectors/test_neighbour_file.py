"""All items' neighbours in one file are those found one item at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.item_vectors.test_neighbours import written
from torchrec_mm.item_vectors import neighbour_file
from torchrec_mm.item_vectors.neighbour_file import write_neighbours
from torchrec_mm.item_vectors.neighbours import Neighbours, neighbours_of


@pytest.mark.parametrize("k", [4, 40])
def test_every_item_has_a_row_with_its_neighbours_as_far_as_there_are_any(tmp_path, monkeypatch, k):
    monkeypatch.setattr(neighbour_file, "QUERY_ITEMS", 7)
    values = np.random.default_rng(0).normal(size=(30, 4))
    search = Neighbours(written(tmp_path / "v", np.arange(30) * 2**40 - 7, values))
    write_neighbours(search, k, tmp_path / "out" / "n.parquet")
    table = pq.read_table(tmp_path / "out" / "n.parquet")
    assert table.schema.types == [pa.int64(), pa.list_(pa.int64()), pa.list_(pa.float32())]
    assert table["item_id"].to_pylist() == search.vectors.item_ids.tolist()
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    for item_id, neighbour_ids, cosines in rows:
        (expected,) = neighbours_of(search, np.array([item_id]), k).named(search.vectors.item_ids)
        assert list(zip(neighbour_ids, cosines, strict=True)) == expected
        assert len(expected) == min(k, 29)


def test_a_search_that_fails_leaves_no_file(tmp_path):
    class Broken(Neighbours):
        def search(self, *args, **kwargs):
            raise OSError("disk gone")

    vectors = written(tmp_path / "v", [1, 2], [(1.0, 0.0), (0.0, 1.0)])
    with pytest.raises(OSError, match="disk gone"):
        write_neighbours(Broken(vectors), 1, tmp_path / "n.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
