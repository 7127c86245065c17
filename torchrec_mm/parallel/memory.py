"""Bytes that a plan takes on each rank, counted from its shards.

TorchRec's own estimate scales the optimizer's state with the weights: half of what fp16 tables
need, too little for row-wise Adagrad on split columns, and a share of the state on the device that
FBGEMM keeps on the host when rows are cached. The planner gets these counts instead.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torchrec.distributed.planner.types import ParameterConstraints, ShardingOption, Storage
from torchrec.distributed.planner.types import ShardEstimator as TorchRecEstimator

from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.topology import Machines

WEIGHT_BYTES = {"fp32": 4, "fp16": 2}
CACHE_LOAD_FACTOR = 0.2
ID_BYTES = 8
BATCHES_IN_FLIGHT = 2
OWNER_BYTES = 32  # of a row of raw ids: owner, count, last step, and where to find the owner
DENSE_BYTES = 4
LEARNING_DENSE_BYTES = 16  # a weight, its gradient and two moments of Adam, all fp32
SAVED_DENSE_BYTES = 12  # the same without the gradient
BATCH_IDS = 65536


@dataclass(frozen=True)
class ShardMemory:
    """Bytes of one shard.

    weights, optimizer: where the table lies, in the host's memory if ``on_host``; ``optimizer``
    holds who owns the rows too, where the table takes raw ids. cache: rows
    and bookkeeping of fused_uvm_caching, on the device. buffers: ids, embeddings and their
    gradients of a step, on the device.
    """

    weights: int
    optimizer: int
    cache: int
    buffers: int
    on_host: bool

    def __add__(self, other: "ShardMemory") -> "ShardMemory":
        return ShardMemory(
            self.weights + other.weights,
            self.optimizer + other.optimizer,
            self.cache + other.cache,
            self.buffers + other.buffers,
            self.on_host,  # shards of one table have one kernel
        )

    @property
    def device_bytes(self) -> int:
        """In the memory that the rank computes in; on the CPU that is the host's."""
        table = 0 if self.on_host else self.weights + self.optimizer
        return table + self.cache + self.buffers

    @property
    def host_bytes(self) -> int:
        """In the host's memory, of a table that a GPU reads there."""
        return self.weights + self.optimizer if self.on_host else 0


def shard_memory(
    *,
    rows: int,
    columns: int,
    table_rows: int,
    settings: TableSettings,
    kernel: str,
    global_ids: int,
    takes_raw_ids: bool = False,
) -> ShardMemory:
    """Count one shard.

    Args:
        rows, columns: of the shard. table_rows: of its whole table. settings: of the table.
        kernel: what the plan gives it. global_ids: distinct ids of the table in a step, summed
            over ranks, or bags. A shard computes a bag for each, also where its rows are others'.
        takes_raw_ids: whether its rows have owners.
    """
    element = WEIGHT_BYTES[settings.dtype]
    state = {"rowwise_adagrad": 4, "adagrad": 4 * columns, "adam": 8 * columns, "sgd": 0}
    cached = 0.0
    if kernel == "fused_uvm_caching":
        cached = settings.cache_load_factor or CACHE_LOAD_FACTOR
    length = 1 if settings.mean_length is None else settings.mean_length
    ids = int(global_ids * length) * rows // max(1, table_rows) * ID_BYTES * BATCHES_IN_FLIGHT
    return ShardMemory(
        weights=rows * columns * element,
        optimizer=rows * (state[settings.optimizer] + OWNER_BYTES * takes_raw_ids),
        # a slot a cached row with its id and its time, and an entry of the map a row
        cache=int(rows * (cached * (columns * element + 16) + 4)) if cached else 0,
        buffers=ids + global_ids * columns * 4 * 2,
        on_host=kernel != "fused",
    )


def replicated_bytes(
    dense_parameters: int, widths: Sequence[int], *, batch_ids: int, learns: bool = True
) -> tuple[int, int]:
    """What each rank holds whatever the plan: the dense part, and its own batch.

    Args:
        dense_parameters: trained weights outside the tables. widths: of each table.
        batch_ids: distinct ids of a table in a rank's step. learns: whether there are gradients.

    Returns:
        Bytes of weights, gradients and Adam's moments; bytes of ids, embeddings and gradients.
    """
    own_batch = sum(batch_ids * (ID_BYTES * BATCHES_IN_FLIGHT + width * 4 * 2) for width in widths)
    return dense_parameters * (LEARNING_DENSE_BYTES if learns else DENSE_BYTES), own_batch


def saved_bytes(dense_parameters: int) -> int:
    """Of the dense part, on every rank, in the copy that a checkpoint is written from."""
    return dense_parameters * SAVED_DENSE_BYTES


class ExactStorage(TorchRecEstimator):
    """What the planner asks for the bytes of each candidate shard."""

    def __init__(
        self,
        machines: Machines,
        tables: Mapping[str, TableSettings],
        raw_id_tables: Collection[str] = (),
        constraints: Mapping[str, ParameterConstraints] | None = None,
    ) -> None:
        self._machines = machines
        self._tables = tables
        self._raw_id_tables = raw_id_tables

    def estimate(self, sharding_options: list[ShardingOption], sharder_data_map: object) -> None:
        """Set ``storage`` of every shard."""
        for option in sharding_options:
            for shard in option.shards:
                memory = shard_memory(
                    rows=shard.size[0],
                    columns=shard.size[1],
                    table_rows=option.tensor.shape[0],
                    settings=self._tables[option.name],
                    kernel=option.compute_kernel,
                    global_ids=option.batch_size * self._machines.world_size,
                    takes_raw_ids=option.name in self._raw_id_tables,
                )
                on_gpu = self._machines.device == "cuda"
                shard.storage = Storage(
                    hbm=memory.device_bytes if on_gpu else 0,
                    ddr=memory.host_bytes if on_gpu else memory.device_bytes,
                )
