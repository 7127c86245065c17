"""Does it fit? Memory of every rank under the best plan, and the smallest changes that help."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from torchrec_mm.parallel.memory import ShardMemory, replicated_bytes, saved_bytes
from torchrec_mm.parallel.plan_files import PlannedTable, planned_tables
from torchrec_mm.parallel.planning import (
    DoesNotFit,
    dense_parameters,
    make_plan,
    prepare_tables,
    table_bytes,
    table_configs,
)
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.topology import Machines

FULL_NODE = 8
MOST_NODES = 32


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What has to fit.

    build: makes the model, its tables on the meta device. tables: settings of every table.
    batch_ids: distinct ids of a table in a rank's step. more_dense: trained weights that the model
    lacks.
    """

    build: Callable[[], nn.Module]
    tables: Mapping[str, TableSettings]
    batch_ids: int
    more_dense: int = 0

    def plan(self, machines: Machines) -> list[PlannedTable]:
        """The best plan; DoesNotFit if there is none, InputError for what the device lacks."""
        model = self.build()
        prepare_tables(model, self.tables, learning_rate=0.0)
        plan = make_plan(
            model, self.tables, machines, batch_ids=self.batch_ids, more_dense=self.more_dense
        )
        return planned_tables(model, plan, self.tables)

    def fits(self, machines: Machines) -> bool:
        """Whether there is a plan."""
        if table_bytes(self.build(), self.tables) > machines.rank_bytes * machines.world_size:
            return False  # the planner would take long to find out
        try:
            self.plan(machines)
        except DoesNotFit:
            return False
        return True

    def with_table(self, table: str, **settings: Any) -> "Workload":
        """The same with other settings of one table."""
        tables = {**self.tables, table: replace(self.tables[table], **settings)}
        return replace(self, tables=tables)


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes of one rank.

    tables: by table, all its shards on this rank together. dense: weights, gradients and Adam's
    moments of the dense part. batch: the rank's own ids, embeddings and their gradients. reserve:
    left to activations, the runtime and fragmentation. capacity: what the rank has. copied: of the
    host's memory, what a checkpoint is written from: weights and state of optimizers.
    """

    rank: int
    tables: Mapping[str, ShardMemory]
    dense: int
    batch: int
    reserve: int
    capacity: int
    copied: int

    @property
    def used(self) -> int:
        """In the memory that the rank computes in, the reserve included."""
        in_tables = sum(memory.device_bytes for memory in self.tables.values())
        return in_tables + self.dense + self.batch + self.reserve

    @property
    def host(self) -> int:
        """Of the host's memory: tables that a GPU reads there, and the copy for checkpoints."""
        return sum(memory.host_bytes for memory in self.tables.values()) + self.copied


def memory_of_ranks(
    workload: Workload, machines: Machines, planned: list[PlannedTable]
) -> list[RankMemory]:
    """Memory of each rank in rank order."""
    widths = [table.width for table in planned]
    parameters = dense_parameters(workload.build()) + workload.more_dense
    dense, batch = replicated_bytes(parameters, widths, batch_ids=workload.batch_ids)
    of_rank: list[dict[str, ShardMemory]] = [{} for _ in range(machines.world_size)]
    for table in planned:
        for shard in table.shards:
            memory = table.memory(shard, machines.world_size, workload.batch_ids)
            before = of_rank[shard.rank].get(table.name)
            of_rank[shard.rank][table.name] = before + memory if before else memory
    return [
        RankMemory(
            rank=rank,
            tables=tables,
            dense=dense,
            batch=batch,
            reserve=machines.reserved_bytes,
            capacity=machines.rank_bytes,
            copied=saved_bytes(parameters)
            + sum(memory.weights + memory.optimizer for memory in tables.values()),
        )
        for rank, tables in enumerate(of_rank)
    ]


def bytes_of_node(ranks: list[RankMemory], machines: Machines) -> int:
    """What the fullest host has to hold for its ranks."""
    on_cpu = machines.device == "cpu"
    of_rank = [rank.host + (rank.used if on_cpu else 0) for rank in ranks]
    starts = range(0, len(ranks), machines.devices_per_node)
    return max(sum(of_rank[start : start + machines.devices_per_node]) for start in starts)


def changes_that_fit(workload: Workload, machines: Machines) -> Iterator[str]:
    """What would make it fit, each alone, smallest change first."""
    rows = {config.name: config for config in table_configs(workload.build())}
    largest = max(rows, key=lambda name: rows[name].num_embeddings * rows[name].embedding_dim)
    settings = workload.tables[largest]
    changes = [("sharding", "row_wise")] if settings.sharding == "table_wise" else []
    changes += [("dtype", "fp16")] if settings.dtype == "fp32" else []
    if machines.device == "cuda" and settings.kernel in (None, "fused"):
        changes.append(("kernel", "fused_uvm_caching"))
    feature = rows[largest].feature_names[0]
    for name, value in changes:
        if workload.with_table(largest, **{name: value}).fits(machines):
            yield f"tables.{feature}.{name} {value}"
    smaller = replace(workload, batch_ids=workload.batch_ids // 8)
    if smaller.batch_ids and smaller.fits(machines):
        yield f"batch_ids {smaller.batch_ids}"
    more = fewest_ranks(workload, machines)
    if more:
        yield f"{more} ranks"


def fewest_ranks(workload: Workload, machines: Machines) -> int | None:
    """The smallest larger number of such devices that fits; None if MOST_NODES nodes do not."""
    candidates = list(larger_clusters(machines))
    low = high = 0
    # From the small end: with many ranks the buffers of row-wise tables grow again.
    while high < len(candidates) and not workload.fits(candidates[high]):
        low, high = high + 1, 2 * high + 1
    within = candidates[low : high + 1]
    found = bisect_left(within, True, key=workload.fits)
    return within[found].world_size if found < len(within) else None


def larger_clusters(machines: Machines) -> Iterator[Machines]:
    """More of the same: GPUs up to a full node, then nodes."""
    per_node = machines.devices_per_node
    if machines.device == "cuda" and machines.world_size == per_node < FULL_NODE:
        for count in range(per_node + 1, FULL_NODE + 1):
            yield replace(machines, world_size=count, devices_per_node=count)
        machines = replace(machines, world_size=FULL_NODE, devices_per_node=FULL_NODE)
        per_node = FULL_NODE
    for nodes in range(machines.world_size // per_node + 1, MOST_NODES + 1):
        yield replace(machines, world_size=nodes * per_node)
