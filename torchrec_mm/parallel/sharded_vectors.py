"""Item vectors beyond one host's memory: each rank holds a slice, all look up in all.

Shape letters: N items with a vector, M items asked for, D item-vector width, W ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.tensor_pool import TensorPoolSharder
from torchrec.distributed.types import ObjectPoolShardingPlan, ObjectPoolShardingType, ShardingEnv
from torchrec.modules.tensor_pool import TensorPool

from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker

FILL_BYTES = 8 << 20  # read from disk at a time


class ShardedVectors:
    """``ItemVectors`` in the memory of all ranks together: ceil(N / W) rows on each.

    A rank reads its own contiguous rows of the file and no others. A look-up sends row numbers
    to the ranks that hold them and receives the values, in TorchRec's TensorPool.
    """

    def __init__(self, vectors: ItemVectors, worker: Worker) -> None:
        """Read this rank's slice on to ``worker.device``. Collective.

        Args:
            vectors: the folder, opened by every rank. worker: this rank.
        """
        self.width = vectors.width
        self.rows_per_rank = -(-len(vectors) // worker.world_size)
        self._device = worker.device
        self._dtype = torch.from_numpy(np.zeros(0, vectors.dtype)).dtype
        padded = self.rows_per_rank * worker.world_size  # TensorPool cuts shards of one size only
        self._pool = TensorPoolSharder().shard(
            TensorPool(padded, self.width, self._dtype, device=torch.device("meta")),
            ObjectPoolShardingPlan(ObjectPoolShardingType.ROW_WISE),
            ShardingEnv.from_process_group(dist.group.WORLD),
            worker.device,
        )
        self._fill(vectors, first=self.rows_per_rank * worker.rank)

    def _fill(self, vectors: ItemVectors, first: int) -> None:
        """Copy rows [first, first + rows_per_rank), in as many blocks as every other rank."""
        last = min(first + self.rows_per_rank, len(vectors))
        block = max(1, FILL_BYTES // (self.width * vectors.dtype.itemsize))
        for start in range(first, first + self.rows_per_rank, block):
            rows = torch.arange(start, max(start, min(start + block, last)))
            values = torch.from_numpy(np.array(vectors.values[start : start + len(rows)]))
            self._pool.update(rows.to(self._device), values.to(self._device))

    @property
    def bytes_per_rank(self) -> int:
        """What the values take of each rank's memory: the same on all."""
        return self.rows_per_rank * self.width * self._dtype.itemsize

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Copy the vectors of some rows, as ``ItemVectors.gather`` does. Collective.

        Args:
            rows: (M,) int64 in [-1, N), on any device; M may be 0 and may differ between ranks.

        Returns:
            values (M, D) in the stored dtype, zeros where the row is -1; and
            mask (M,) bool, True where the item has a vector; both on the worker's device.
        """
        rows = rows.to(self._device)
        mask = rows >= 0
        values = torch.zeros(len(rows), self.width, dtype=self._dtype, device=self._device)
        values[mask] = self._pool.lookup(rows[mask]).wait()
        return values, mask


def with_vectors(
    batches: Iterator[Any], gather: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Iterator[Any]:
    """Fill each batch's vectors before the pipeline sees it. Collective, step by step.

    Args:
        batches: dataclasses with ``vector_rows`` (S,) int64, ``vectors`` and ``vector_mask``; as
            many on every rank. gather: ``ShardedVectors.gather``.

    Yields:
        The batches with ``vectors`` (S, D) and ``vector_mask`` (S,), and ``vector_rows`` None.
    """
    for batch in batches:
        values, mask = gather(batch.vector_rows)
        yield replace(batch, vectors=values, vector_mask=mask, vector_rows=None)
