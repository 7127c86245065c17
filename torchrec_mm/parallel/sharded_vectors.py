"""Item vectors beyond one host's memory: each rank holds a slice, all look up in all.

Shape letters: N items with a vector, M items asked for, D item-vector width, W ranks.
"""

from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.tensor_pool import TensorPoolSharder
from torchrec.distributed.types import ObjectPoolShardingPlan, ObjectPoolShardingType, ShardingEnv
from torchrec.modules.tensor_pool import TensorPool

from torchrec_mm.data.stream.vector_source import Fetched, MappedVectors, VectorSource
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.distinct import distinct_array
from torchrec_mm.parallel.process_group import Worker

Storage = Literal["mapped", "sharded"]

FILL_BYTES = 8 << 20  # read from disk at a time


class ShardedVectors:
    """``ItemVectors`` in the memory of all ranks together: ceil(N / W) rows on each.

    A ``VectorSource``. A rank reads its own contiguous rows of the file and no others. A look-up
    sends row numbers to the ranks that hold them and receives the values, in TorchRec's TensorPool.
    """

    collective = True

    def __init__(self, vectors: ItemVectors, worker: Worker) -> None:
        """Read this rank's slice of a folder that all ranks opened on to its device. Collective."""
        self.width = vectors.width
        self._vectors = vectors
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
        """Copy rows [first, first + rows_per_rank), as far as there are any, block by block."""
        # The pool's own update() would sort the rows and send each from this rank to itself.
        shard = self._pool.state_dict()["_pool"].local_shards()[0].tensor
        mine = vectors.values[first : first + self.rows_per_rank]
        block = max(1, FILL_BYTES // (self.width * vectors.dtype.itemsize))
        for start in range(0, len(mine), block):
            values = torch.from_numpy(np.array(mine[start : start + block]))
            shard[start : start + len(values)] = values

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """As ``ItemVectors.rows``; every rank knows all ids."""
        return self._vectors.rows(item_ids)

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copy the vectors of some rows, as ``VectorSource`` says. Collective.

        M may be 0, and may differ between ranks.
        """
        asked = torch.from_numpy(rows).to(self._device, torch.int64)
        mask = asked >= 0
        values = torch.zeros(len(asked), self.width, dtype=self._dtype, device=self._device)
        values[mask] = self._pool.lookup(asked[mask]).wait()
        return values.cpu(), mask.cpu()

    def fetch(self, candidate_rows: np.ndarray, behaviour_rows: np.ndarray) -> Fetched:
        """Copy the vectors of the batch's distinct rows, and number the rows anew. Collective."""
        rows = np.concatenate([candidate_rows, behaviour_rows])
        distinct_rows, place = distinct_array(rows)
        matrix, _ = self.gather(distinct_rows)
        renumbered = np.where(rows < 0, np.int32(-1), place)
        return Fetched(matrix, *np.split(renumbered, [len(candidate_rows)]))


def vector_source(vectors: ItemVectors, storage: Storage, worker: Worker) -> VectorSource:
    """The vectors as ``storage`` says, "mapped" or "sharded", which is collective."""
    return ShardedVectors(vectors, worker) if storage == "sharded" else MappedVectors(vectors)


def collates_ahead(source: VectorSource | None, worker: Worker) -> bool:
    """Whether a thread beside the steps is to make the batches, not only read the requests.

    A collective source has to be asked in step. On a CPU the thread pays where vectors are
    compared, in kernels: what else makes a batch is Python, and two threads that hand its lock to
    and fro take twice as long as one.
    """
    if source is None:
        return worker.device.type == "cuda"
    return not source.collective
