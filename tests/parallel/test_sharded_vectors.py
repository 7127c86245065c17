"""Vectors spread over ranks are the vectors of the folder, wherever they are asked for."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from tests.parallel.launch import on_two_ranks
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.parallel import sharded_vectors
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import ShardedVectors, collates_ahead

WIDTH = 5
ITEMS = 11  # odd: the last rank's slice is shorter


def folder_of(parent: Path, dtype: str, items: int = ITEMS) -> Path:
    """Vectors that differ in every value."""
    folder = parent / f"{dtype}-{items}"
    values = np.random.default_rng(0).normal(size=(items, WIDTH)).astype(np.float32)
    write_item_vectors(folder, np.arange(items) * 3, values, dtype=dtype, encoder="e", modality="m")
    return folder


def same(sharded: ShardedVectors, vectors: ItemVectors, rows: list[int]) -> bool:
    """Whether both give the same values, mask and dtype."""
    values, mask = sharded.gather(np.array(rows, dtype=np.int64))
    expected, expected_mask = vectors.gather(np.array(rows, dtype=np.int64))
    return (
        values.dtype == torch.from_numpy(expected).dtype
        and torch.equal(values, torch.from_numpy(expected))
        and torch.equal(mask, torch.from_numpy(expected_mask))
    )


ASKED = (  # by rank
    ([0, 1, 2], [10, 9, 8]),
    ([7, -1, 0, 7, 5], [6]),
    ([], [3, -1, 10]),
    ([-1], []),
    ([], []),
    ([-1, -1], [4, 4, 4]),
    (list(range(ITEMS)), list(range(ITEMS))),
)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_lone_rank_gathers_what_the_folder_holds(dtype, worker, tmp_path):
    vectors = ItemVectors.open(folder_of(tmp_path, dtype))
    sharded = ShardedVectors(vectors, worker)
    for rows, _ in ASKED:
        assert same(sharded, vectors, rows)


def test_a_shard_longer_than_a_block_is_filled_without_a_seam(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_vectors, "FILL_BYTES", 2 * WIDTH)
    vectors = ItemVectors.open(folder_of(tmp_path, "int8"))
    assert same(ShardedVectors(vectors, worker), vectors, list(range(ITEMS)))


def found_by(fetch, candidates: list[int], behaviours: list[int]) -> list[list[float] | None]:
    """The vector that a search sees for each row, None where it sees none."""
    matrix, *numbered = fetch(np.array(candidates, np.int32), np.array(behaviours, np.int32))
    assert [len(rows) for rows in numbered] == [len(candidates), len(behaviours)]
    assert all(rows.dtype == np.int32 for rows in numbered)
    return [None if row < 0 else matrix[row].tolist() for row in np.concatenate(numbered)]


@pytest.mark.parametrize(
    ("candidates", "behaviours"), [([3, -1, 3], [10, 3, -1, 0]), ([-1], []), ([2], [2, 2])]
)
def test_a_search_finds_the_vectors_of_its_rows_and_fetches_each_once(
    candidates, behaviours, worker, tmp_path
):
    vectors = ItemVectors.open(folder_of(tmp_path, "int8"))
    sharded = ShardedVectors(vectors, worker)
    mapped = found_by(MappedVectors(vectors).fetch, candidates, behaviours)
    assert found_by(sharded.fetch, candidates, behaviours) == mapped
    rows = np.array(candidates, np.int32), np.array(behaviours, np.int32)
    assert len(sharded.fetch(*rows).matrix) == len({*candidates, *behaviours})


def on_each_rank(worker: Worker, folder: Path) -> None:
    """What the ranks of the test below do."""
    for dtype in ("int8", "float32"):
        for items in (ITEMS, 1):  # of one item the second rank holds nothing
            vectors = ItemVectors.open(folder / f"{dtype}-{items}")
            asked_for = NotedReads(vectors.values)
            vectors.values = asked_for
            sharded = ShardedVectors(vectors, worker)
            half = -(-items // 2)
            mine = range(half * worker.rank, min(half * (worker.rank + 1), items))
            assert asked_for.rows == set(mine), asked_for.rows
            held = sharded._pool.state_dict()["_pool"].local_shards()
            held_bytes = sum(shard.tensor.nbytes for shard in held)
            assert held_bytes == half * WIDTH * vectors.dtype.itemsize
            for by_rank in ASKED:
                assert same(sharded, vectors, [min(row, items - 1) for row in by_rank[worker.rank]])


class NotedReads:
    """An array that remembers which of its rows were sliced."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.rows: set[int] = set()

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.rows |= set(range(*rows.indices(len(self.array))))
        return self.array[rows]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.array)


def test_batches_are_made_beside_the_steps_where_it_pays_and_no_other_rank_is_asked():
    cpu, gpu = (Worker(torch.device(name), 0, 2) for name in ("cpu", "cuda"))
    mapped, sharded = mock.Mock(collective=False), mock.Mock(collective=True)
    assert [collates_ahead(source, cpu) for source in (None, mapped, sharded)] == [0, 1, 0]
    assert [collates_ahead(source, gpu) for source in (None, mapped, sharded)] == [1, 1, 0]


def test_two_ranks_hold_half_each_and_gather_what_the_folder_holds(tmp_path):
    for dtype in ("int8", "float32"):
        for items in (ITEMS, 1):
            folder_of(tmp_path, dtype, items)
    on_two_ranks(__name__, tmp_path)
