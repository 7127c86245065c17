"""What a table costs in training: bytes a row, and bytes a rank.

Ours is one of the ranker's tables, sharded, with row-wise Adagrad; the baseline is
nn.Embedding(sparse=True) with SparseAdam, which DDP repeats on every rank.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchrec_mm.benchmarks.harness import (
    BenchmarkConfig,
    alternate,
    comparison,
    in_fresh_process,
    on_fresh_ranks,
)
from torchrec_mm.benchmarks.loader import memory_bytes
from torchrec_mm.config import check_fields
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import build_one_id_tables
from torchrec_mm.runs.tensor_shards import model_shards

Build = Callable[[Worker, int, int], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class MemoryConfig(BenchmarkConfig):
    """Bytes that a table's row costs in training, weights and optimizer state.

    Counted over the tensors that are there, and again as growth of resident memory; then how the
    bytes of the whole table spread over ranks. The baseline is nn.Embedding(sparse=True) with
    SparseAdam.
    """

    rows: int = 1_000_000
    """Rows of the table."""
    embedding_dim: int = 16
    """Width of the table; a multiple of 4."""
    world_size: int = 2
    """Ranks that the table is divided over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "rows", "world_size")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")


@dataclass(frozen=True)
class Cost:
    """Bytes of a table's tensors in training, and of resident memory."""

    tensor_bytes: float
    resident_bytes: float


@dataclass(frozen=True)
class TableCost:
    """A whole table, and what each further row adds."""

    table: Cost
    row: Cost


def compare(config: MemoryConfig) -> Iterator[dict[str, Any]]:
    """Bytes a row, then bytes a rank."""
    sides = {"ours": sharded_table, "baseline": sparse_adam_table}
    measured = {side: partial(table_cost, build, config) for side, build in sides.items()}
    costs = alternate(measured, config.runs)
    tensors, resident = (
        {side: [getattr(cost.row, kind) for cost in costs[side]] for side in sides}
        for kind in ("tensor_bytes", "resident_bytes")
    )
    yield comparison(
        "memory",
        "bytes/row",
        **tensors,
        more_is_better=False,
        ours_resident=statistics.median(resident["ours"]),
        baseline_resident=statistics.median(resident["baseline"]),
        promised=1.1 * 4 * (config.embedding_dim + 1),
    )
    ours, baseline = (costs[side][0].table.tensor_bytes for side in sides)
    yield memory_per_rank(config, ours, baseline)


def memory_per_rank(config: MemoryConfig, one_rank: float, baseline: float) -> dict[str, Any]:
    """The fullest rank's bytes, counted: nothing random, so once is enough.

    Args:
        one_rank: bytes of our table on one rank. baseline: of the baseline's, on every rank.
    """
    size = (config.rows, config.embedding_dim)
    costs = on_fresh_ranks(cost, sharded_table, *size, world_size=config.world_size, threads=1)
    ours = max(cost.tensor_bytes for cost in costs)
    return comparison(
        "memory/rank",
        "bytes/rank",
        [ours],
        [baseline],
        more_is_better=False,
        world_size=config.world_size,
        ours_one_rank=one_rank,
        above_equal_shares=ours * config.world_size / one_rank - 1,
        promised=0.1,
    )


def table_cost(build: Build, config: MemoryConfig) -> TableCost:
    """A row is what twice the rows cost more: fixed costs cancel, each size has a fresh process."""
    sizes = (config.rows, 2 * config.rows)
    once, twice = (in_fresh_process(cost, build, n, config.embedding_dim) for n in sizes)
    row = Cost(
        (twice.tensor_bytes - once.tensor_bytes) / config.rows,
        (twice.resident_bytes - once.resident_bytes) / config.rows,
    )
    return TableCost(once, row)


def cost(build: Build, rows: int, dim: int) -> Cost:
    """Build, touch every page, count; one rank's part."""
    with suppress_library_warnings(), process_group() as worker:
        tensors = build(worker, rows, dim)
        for tensor in tensors:
            tensor.add_(0)  # a page that was never written is not resident yet
        return Cost(sum(tensor.nbytes for tensor in tensors), memory_bytes("VmRSS"))


def sharded_table(worker: Worker, rows: int, dim: int) -> list[Tensor]:
    """One of the ranker's tables, sharded, with its optimizer state."""
    tables = build_one_id_tables({"item_id": rows}, dim)
    model = nn.ModuleDict({"tables": tables, "dense": nn.Linear(1, 1)})
    settings = OptimizerSettings(learning_rate=0.0, weight_decay=0.0, table_scale=0.01)
    distributed = distribute(model, worker, settings, seed=0)
    shards = model_shards(distributed.model, distributed.optimizer)
    return [tensor for name, own in shards.items() if "item_id" in name for _, tensor in own.parts]


def sparse_adam_table(worker: Worker, rows: int, dim: int) -> list[Tensor]:
    """The same table as a plain embedding after one step of SparseAdam."""
    table = nn.Embedding(rows, dim, sparse=True, device=worker.device)
    optimizer = torch.optim.SparseAdam(table.parameters())
    table(torch.zeros(1, dtype=torch.int64, device=worker.device)).sum().backward()
    optimizer.step()
    state = optimizer.state[table.weight]
    return [table.weight.detach(), *(value for value in state.values() if torch.is_tensor(value))]
