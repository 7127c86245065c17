"""From the tables' settings to TorchRec's sharding plan, for machines that need not be present.

A batch holds each distinct id once (data/stream/collate.py): TorchRec's index deduplication would
find nothing to do.
"""

from collections.abc import Mapping, Sequence

import torch
import torchrec.optim
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec.distributed.embeddingbag import (
    EmbeddingBagCollectionSharder,
    ShardedEmbeddingBagCollection,
)
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.shard_estimators import EmbeddingPerfEstimator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import (
    CacheParams,
    ModuleSharder,
    ParameterSharding,
    QuantizedCommCodecs,
    ShardingEnv,
    ShardingPlan,
)
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from torchrec_mm.commands import module_of
from torchrec_mm.data.stream.one_id_tables import OneIdTables
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.cuda.one_id import (
    OneIdEnumerator,
    ShardedOneIdTables,
    goes_by_rows,
    sends_rows,
)
from torchrec_mm.parallel.memory import (
    BATCH_IDS,
    CACHE_LOAD_FACTOR,
    ExactStorage,
    replicated_bytes,
    shard_memory,
)
from torchrec_mm.parallel.tables import KERNELS, SHARDINGS, TableSettings, check_device
from torchrec_mm.parallel.topology import GIB, Machines
from torchrec_mm.parallel.zero_collision import (
    ZeroCollisionSharder,
    check_zero_collision,
    tables_of_raw_ids,
)

OPTIMIZERS = {
    "rowwise_adagrad": torchrec.optim.RowWiseAdagrad,
    "adagrad": torchrec.optim.Adagrad,
    "adam": torchrec.optim.Adam,
    "sgd": torchrec.optim.SGD,
}
# Not those that split columns: row-wise Adagrad, the default, would learn otherwise (tables.py).
PLANNER_SHARDINGS = ["table_wise", "row_wise"]


class DoesNotFit(InputError):
    """No plan keeps every rank within its memory."""


class RowWiseEverywhereSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, which offers row-wise plans on CUDA only, with them on the CPU too.

    What it offers is narrowed by each table's constraints.
    """

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(SHARDINGS)

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        return list(KERNELS) if compute_device_type == "cuda" else ["fused"]


class OneIdSharder(RowWiseEverywhereSharder):
    """Of tables of one-id bags: where a device sends rows, and all tables can be cut for it."""

    def shard(
        self,
        module: EmbeddingBagCollection,
        params: dict[str, ParameterSharding],
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> ShardedEmbeddingBagCollection | ShardedOneIdTables:
        named = {"qcomm_codecs_registry": self.qcomm_codecs_registry, "module_fqn": module_fqn}
        of_rows = all(goes_by_rows(params[c.name].sharding_type) for c in table_configs(module))
        if of_rows and device is not None and sends_rows(device.type):
            return ShardedOneIdTables(module, params, env, self.fused_params, device, **named)
        return super().shard(module, params, env, device, module_fqn)

    @property
    def module_type(self) -> type[OneIdTables]:
        return OneIdTables


def sharders(
    codecs: dict[str, QuantizedCommCodecs] | None = None,
) -> list[ModuleSharder[nn.Module]]:
    """Of every kind of module that holds tables. codecs: for what they send between ranks."""
    return [
        OneIdSharder(qcomm_codecs_registry=codecs),
        RowWiseEverywhereSharder(qcomm_codecs_registry=codecs),
        ZeroCollisionSharder(qcomm_codecs_registry=codecs),
    ]


def collections_of(model: nn.Module) -> list[EmbeddingBagCollection]:
    """The model's embedding collections."""
    return [module for module in model.modules() if isinstance(module, EmbeddingBagCollection)]


def table_configs(model: nn.Module) -> list[EmbeddingBagConfig]:
    """Of every table, in the model's order."""
    return [c for module in collections_of(model) for c in module.embedding_bag_configs()]


def dense_parameters(model: nn.Module) -> int:
    """How many weights of a model lie in none of its tables."""
    in_tables = sum(c.num_embeddings * c.embedding_dim for c in table_configs(model))
    return sum(parameter.numel() for parameter in model.parameters()) - in_tables


def table_bytes(model: nn.Module, tables: Mapping[str, TableSettings]) -> int:
    """Weights, optimizer state and caches in the memory that ranks compute in, all ranks' together.

    Args:
        model: its tables on the meta device. tables: settings of each of them.
    """
    total, raw_id_tables = 0, tables_of_raw_ids(model)
    for config in table_configs(model):
        settings, rows = tables[config.name], config.num_embeddings
        kernel = settings.kernel or "fused"
        # As one shard that looks up no ids: buffers belong to a batch, not to a table.
        memory = shard_memory(
            rows=rows,
            columns=config.embedding_dim,
            table_rows=rows,
            settings=settings,
            kernel=kernel,
            global_ids=0,
            takes_raw_ids=config.name in raw_id_tables,
        )
        total += memory.device_bytes
    return total


def prepare_tables(
    model: nn.Module, tables: Mapping[str, TableSettings], learning_rate: float
) -> None:
    """Give each table on the meta device its dtype, and the optimizer that its backward runs.

    Args:
        model: before it is sharded. tables: settings of each of its tables.
        learning_rate: of the tables that have none of their own.
    """
    for collection in collections_of(model):
        for config in collection.embedding_bag_configs():
            settings = tables[config.name]
            bag = collection.embedding_bags[config.name]
            if settings.dtype == "fp16":
                config.data_type = DataType.FP16
                bag.weight = nn.Parameter(torch.empty_like(bag.weight, dtype=torch.float16))
            rate = learning_rate if settings.learning_rate is None else settings.learning_rate
            _apply_optimizer_in_backward(OPTIMIZERS[settings.optimizer], [bag.weight], {"lr": rate})


def allowed_shardings(
    config: EmbeddingBagConfig, world_size: int, takes_raw_ids: bool
) -> list[str]:
    """Sharding types that the planner may choose from for a table without a setting."""
    if takes_raw_ids:  # an id is kept by the rank that its row is on (zero_collision.py)
        return ["row_wise"]
    if world_size == 1:  # nothing to cut: row-wise tables would sort ids by rank in vain
        return ["table_wise"]
    return PLANNER_SHARDINGS if fills_every_rank(config, world_size) else ["table_wise"]


def fills_every_rank(config: EmbeddingBagConfig, world_size: int) -> bool:
    """Whether a row-wise table has a row for each rank; FBGEMM fails on a rank without one."""
    return -(-config.num_embeddings // world_size) * (world_size - 1) < config.num_embeddings


def check_rows(
    configs: Sequence[EmbeddingBagConfig], tables: Mapping[str, TableSettings], world_size: int
) -> None:
    """InputError, naming table and ranks, for a table cut by rows that has too few of them."""
    for config in configs:
        if tables[config.name].sharding == "row_wise" and not fills_every_rank(config, world_size):
            raise InputError(
                f"tables.{config.name}.sharding must be table_wise with {config.num_embeddings} "
                f"rows on {world_size} ranks, got row_wise: some rank would have no row"
            )


def constraints_of(
    model: nn.Module, tables: Mapping[str, TableSettings], machines: Machines
) -> dict[str, ParameterConstraints]:
    """What the planner may choose for each table of ``model``."""
    nodes = machines.world_size // machines.devices_per_node
    raw = tables_of_raw_ids(model)
    constraints = {}
    for config in table_configs(model):
        name, settings = config.name, tables[config.name]
        parts = nodes if settings.sharding == "grid_shard" else machines.world_size
        cached = settings.kernel == "fused_uvm_caching"
        factor = settings.cache_load_factor or CACHE_LOAD_FACTOR
        constraints[name] = ParameterConstraints(
            sharding_types=[settings.sharding]
            if settings.sharding
            else allowed_shardings(config, machines.world_size, name in raw),
            compute_kernels=[settings.kernel or "fused"],
            # As many parts as there are ranks, or nodes: TorchRec's own least width, 128, would
            # leave narrow tables whole.
            min_partition=max(4, -(-config.embedding_dim // parts)),
            pooling_factors=[1.0 if settings.mean_length is None else settings.mean_length]
            * len(config.feature_names),
            cache_params=CacheParams(load_factor=factor) if cached else None,
        )
    return constraints


def make_plan(
    model: nn.Module,
    tables: Mapping[str, TableSettings],
    machines: Machines,
    *,
    batch_ids: int = BATCH_IDS,
    more_dense: int = 0,
    learns: bool = True,
) -> ShardingPlan:
    """The fastest plan that fits, by TorchRec's model of speed and our count of bytes.

    Args:
        model: prepared by ``prepare_tables``. tables: settings of each of its tables.
        machines: where it would run. batch_ids: distinct ids of a table in a rank's step.
        more_dense: trained weights that ``model`` lacks. learns: False to score alone.

    Raises:
        InputError: no plan fits the memory, or a setting that the device does not have.
    """
    check_device(tables, machines.device)
    check_zero_collision(model, tables, machines.world_size)
    check_rows(table_configs(model), tables, machines.world_size)
    widths = {config.name: config.embedding_dim for config in table_configs(model)}
    dense = dense_parameters(model) + more_dense
    replicated = replicated_bytes(dense, list(widths.values()), batch_ids=batch_ids, learns=learns)
    topology = machines.topology(sum(replicated))
    constraints = constraints_of(model, tables, machines)
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=batch_ids,  # a batch is of distinct ids here, with one bag each
        enumerator=(OneIdEnumerator if sends_rows(machines.device) else EmbeddingEnumerator)(
            topology,
            batch_ids,
            constraints,
            [
                EmbeddingPerfEstimator(topology, constraints),
                ExactStorage(machines, tables, tables_of_raw_ids(model)),
            ],
        ),
        # The topology's capacities are without the reserve and the dense part already.
        storage_reservation=FixedPercentageStorageReservation(0.0),
        constraints=constraints,
        debug=False,
    )
    try:
        return planner.plan(model, sharders())
    except PlannerError as error:
        raise DoesNotFit(
            f"tables must fit in {machines.rank_bytes / GIB:.1f} GiB on each of "
            f"{machines.world_size} ranks, got {table_bytes(model, tables) / GIB:.1f} GiB"
            f"{' with their optimizers' if learns else ''}: "
            f"python -m {module_of('plan')} says what would fit"
        ) from error
