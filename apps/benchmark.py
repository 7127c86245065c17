"""Measure ours against a baseline in one run; one JSON line a comparison.

python -m apps.benchmark memory --json
"""

import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchrec_mm.config import parse, run
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import build_tables
from torchrec_mm.reporting.machine import describe_machine
from torchrec_mm.train.state import training_pieces


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure ours and a baseline alternately, and print medians and their ratio.

    memory: bytes that a table's row costs in training, weights and optimizer state, counted over
    the tensors that are there, and again as growth of resident memory; the baseline is
    nn.Embedding(sparse=True) with SparseAdam.
    """

    name: Literal["memory"]
    """What to measure."""

    json: bool = False
    """Print one JSON line a comparison instead of a sentence."""

    rows: int = 1_000_000
    """Rows of the table."""

    embedding_dim: int = 16
    """Width of the table."""

    runs: int = 3
    """Repetitions of each side."""


@dataclass(frozen=True)
class Cost:
    """Bytes of a table's tensors in training, and of resident memory."""

    tensor_bytes: float
    resident_bytes: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(BenchmarkConfig, argv, positional="name")
    sides = {"ours": sharded_table, "baseline": sparse_adam_table}
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for _ in range(config.runs):
        for side, build in sides.items():
            costs[side].append(cost_per_row(build, config))
    tensors, resident = (
        {side: statistics.median(getattr(cost, kind) for cost in costs[side]) for side in sides}
        for kind in ("tensor_bytes", "resident_bytes")
    )
    result = {
        "benchmark": "memory",
        "unit": "bytes/row",
        "ours": tensors["ours"],
        "baseline": tensors["baseline"],
        "ratio": tensors["baseline"] / tensors["ours"],
        "runs": config.runs,
        "ours_resident": resident["ours"],
        "baseline_resident": resident["baseline"],
        "promised": 1.1 * 4 * (config.embedding_dim + 1),
        "machine": describe_machine(),
    }
    if config.json:
        print(json.dumps(result))
        return
    print(
        f"memory, bytes a row of width {config.embedding_dim}: "
        f"{result['ours']:.1f} counted and {result['ours_resident']:.1f} resident, "
        f"at most {result['promised']:.1f} promised; SparseAdam {result['baseline']:.1f} "
        f"and {result['baseline_resident']:.1f}"
    )


def cost_per_row(build: Callable[[int, int], list[Tensor]], config: BenchmarkConfig) -> Cost:
    """What twice the rows cost more, a row: fixed costs cancel, each size has a fresh process."""
    once, twice = (
        in_fresh_process(build, rows, config.embedding_dim)
        for rows in (config.rows, 2 * config.rows)
    )
    return Cost(
        (twice.tensor_bytes - once.tensor_bytes) / config.rows,
        (twice.resident_bytes - once.resident_bytes) / config.rows,
    )


def in_fresh_process(build: Callable[[int, int], list[Tensor]], rows: int, dim: int) -> Cost:
    """The cost of one table in a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(cost, build, rows, dim).result()


def cost(build: Callable[[int, int], list[Tensor]], rows: int, dim: int) -> Cost:
    """Build, touch every page, count."""
    with quiet_libraries(), process_group():
        tensors = build(rows, dim)
        for tensor in tensors:
            tensor.add_(0)  # a page that was never written is not resident yet
        return Cost(sum(tensor.nbytes for tensor in tensors), resident_bytes())


def sharded_table(rows: int, dim: int) -> list[Tensor]:
    """One of the ranker's tables, sharded, with its optimizer state."""
    model = nn.ModuleDict(
        {"tables": build_tables({"item_id": rows}, dim), "dense": nn.Linear(1, 1)}
    )
    worker = Worker(torch.device("cpu"), 0, 1)
    settings = OptimizerSettings(learning_rate=0.0, weight_decay=0.0, table_scale=0.01)
    pieces = training_pieces(distribute(model, worker, settings, seed=0))
    return [
        tensor for name, piece in pieces.items() if "item_id" in name for _, tensor in piece.parts
    ]


def sparse_adam_table(rows: int, dim: int) -> list[Tensor]:
    """The same table as a plain embedding after one step of SparseAdam."""
    table = nn.Embedding(rows, dim, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    table(torch.zeros(1, dtype=torch.int64)).sum().backward()
    optimizer.step()
    state = optimizer.state[table.weight]
    return [table.weight.detach(), *(value for value in state.values() if torch.is_tensor(value))]


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(run(main))
