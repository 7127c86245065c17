"""Tables of raw ids over all ranks: how they are cut, and when rows lose their ids."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.mc_embeddingbag import (
    ManagedCollisionEmbeddingBagCollectionSharder,
    ShardedManagedCollisionEmbeddingBagCollection,
)
from torchrec.distributed.types import ParameterSharding, ShardingEnv, ShardingType
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import ManagedCollisionCollection

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.tables import TableSettings


class ShardedZeroCollisionTables(ShardedManagedCollisionEmbeddingBagCollection):
    """TorchRec's sharded module, which can empty rows on CUDA only, doing so on the CPU too."""

    @torch.no_grad()
    def _evict(self, evictions_per_table: Mapping[str, Tensor | None]) -> None:
        """Set weights and optimizer state of rows here to zero, for the owners to come."""
        for table, rows in evictions_per_table.items():
            if rows is not None:
                kernel, number = self._table_to_tbe_and_index[table]
                kernel.split_embedding_weights()[int(number)][rows] = 0
                for state in kernel.split_optimizer_states()[int(number)]:
                    state[rows] = 0

    def flush_evictions(self) -> None:
        """Evict by all that was seen so far, on this rank."""
        collection = self._managed_collision_collection
        for owners in collection._managed_collision_modules.values():
            owners.flush_evictions()
        self._evict(collection.evict())


class ZeroCollisionSharder(ManagedCollisionEmbeddingBagCollectionSharder):
    """TorchRec's sharder: row-wise only, as its managed collision asks for, on the CPU too.

    An id, its count and its row live on one rank. Every owner of a row, the first too, starts
    from weights and row-wise Adagrad state of zero.
    """

    def shard(
        self,
        module: ManagedCollisionEmbeddingBagCollection,
        params: dict[str, ParameterSharding],
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> ShardedZeroCollisionTables:
        sharders = (self._e_sharder, self._mc_sharder)
        return ShardedZeroCollisionTables(module, params, *sharders, env, device)

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [ShardingType.ROW_WISE.value]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        # A cache would hold copies of the rows that are emptied.
        return [EmbeddingComputeKernel.FUSED.value]


def tables_of_raw_ids(model: nn.Module) -> set[str]:
    """Names of the tables that take raw ids."""
    return {
        table
        for module in model.modules()
        if isinstance(module, ManagedCollisionCollection)
        for table in module.table_to_number_buckets()
    }


def check_zero_collision(
    model: nn.Module, tables: Mapping[str, TableSettings], world_size: int
) -> None:
    """Refuse to cut the tables of raw ids in a way that they cannot be cut.

    Args:
        model: before it is sharded. tables: settings of each table. world_size: number of ranks.

    Raises:
        InputError: naming the table, the field and the value.
    """
    only = {"sharding": ShardingType.ROW_WISE.value, "kernel": EmbeddingComputeKernel.FUSED.value}
    for module in model.modules():
        if isinstance(module, ManagedCollisionCollection):
            for table, partitions in module.table_to_number_buckets().items():
                if partitions % world_size:
                    raise InputError(
                        f"zero_collision.{table}.partitions must be a multiple of the number of "
                        f"ranks, {world_size}, got {partitions}"
                    )
                for name, allowed in only.items():
                    value = getattr(tables[table], name)
                    if value not in (None, allowed):
                        rule = f"tables.{table}.{name} must be {allowed} with zero_collision"
                        raise InputError(f"{rule}, got {value}")


def flush_evictions(model: nn.Module) -> None:
    """Evict by what was seen so far; call it before a checkpoint of ``model`` on every rank.

    What was seen since the last eviction is not in a checkpoint. After this nothing is left out, so
    a run that stops here and one that goes on stay equal. When a run saves is thus part of when it
    evicts.
    """
    for module in model.modules():
        if isinstance(module, ShardedZeroCollisionTables):
            module.flush_evictions()
