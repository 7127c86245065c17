"""What a checkpoint costs: the time that training loses, and how fast the bytes reach the disk.

Ours is copied at once and written while training goes on. The baseline is the same save with
training waiting for it; for the disk it is ``dd`` of the same bytes. All end with fsync.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.benchmarks.harness import (
    BenchmarkConfig,
    alternate,
    comparison,
    in_fresh_process,
    now,
)
from torchrec_mm.config import check_fields
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.sharding import DistributedModel, OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import build_one_id_tables
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import model_shards

BATCH_IDS = 1 << 14
MATRIX = 1024
QUIET_STEPS = 30


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(BenchmarkConfig):
    """Seconds that training loses to a checkpoint, and bytes a second to disk.

    Training is one rank of one thread: a table that is looked up and updated, and a matrix
    product. The first save of a run, which also makes the buffers of its copy, is left out.
    """

    work_dir: Path = Path(".")
    """Folder on the disk to write to; nothing stays there."""
    rows: int = 15_000_000
    """Rows of the table: at 16 columns 68 bytes each, Adagrad's state included."""
    embedding_dim: int = 16
    """Width of the table; a multiple of 4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "rows")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")


@dataclass(frozen=True)
class Cost:
    """lost_s: of training, by one save. dd_s: of dd. bytes: of the checkpoint's tensors."""

    lost_s: float
    dd_s: float
    bytes: int


class TableAndMatrix(nn.Module):
    """The two parts that a training step spends its time in."""

    def __init__(self, rows: int, embedding_dim: int) -> None:
        super().__init__()
        self.tables = build_one_id_tables({"item_id": rows}, embedding_dim)
        self.matrix = nn.Linear(MATRIX, MATRIX)

    def forward(self, ids: KeyedJaggedTensor, dense: Tensor) -> Tensor:
        """A loss."""
        return self.tables(ids).values().square().mean() + self.matrix(dense).square().mean()


def compare(config: CheckpointConfig) -> Iterator[dict[str, Any]]:
    """Time lost by training, then bandwidth."""
    fresh = partial(in_fresh_process, cost, config, threads=1)
    costs = alternate(
        {"ours": partial(fresh, False), "baseline": partial(fresh, True)}, config.runs
    )
    yield comparison(
        "checkpoint/training",
        "s lost",
        [one.lost_s for one in costs["ours"]],
        [one.lost_s for one in costs["baseline"]],
        more_is_better=False,
        bytes=costs["ours"][0].bytes,
        promised=10,
    )
    yield comparison(
        "checkpoint/disk",
        "bytes/s",
        [one.bytes / one.lost_s for one in costs["baseline"]],
        [one.bytes / one.dd_s for one in costs["baseline"]],
        more_is_better=True,
        promised=0.7,
    )


def cost(config: CheckpointConfig, waits: bool) -> Cost:
    """One save of a training that goes on; where it ``waits``, for all of the save."""
    with (
        suppress_library_warnings(),
        process_group() as worker,
        tempfile.TemporaryDirectory(dir=config.work_dir) as folder,
        Checkpointer(Path(folder), keep=2) as checkpointer,
    ):
        settings = OptimizerSettings(
            learning_rate=0.0, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.01
        )
        model = TableAndMatrix(config.rows, config.embedding_dim)
        distributed = distribute(model, worker, settings, seed=0)
        step = training_step(distributed, config.rows)
        step()  # which makes the dense optimizer's state
        shards = model_shards(distributed.model, distributed.optimizer)
        checkpointer.save(shards, Position(step=0))
        checkpointer.wait()
        device = worker.device
        quiet_s = median(seconds(step, device) for _ in range(QUIET_STEPS))

        def save() -> None:
            checkpointer.save(shards, Position(step=1))
            if waits:
                checkpointer.wait()

        lost_s = seconds(save, device)
        while checkpointer.writing and not checkpointer.writing.done():
            lost_s += seconds(step, device) - quiet_s
        checkpointer.wait()
        size = sum(tensor.nbytes for own in shards.values() for _, tensor in own.parts)
        return Cost(lost_s, dd_s(find_checkpoint(Path(folder)).folder), size)


def training_step(distributed: DistributedModel, rows: int) -> Callable[[], None]:
    """A step on one batch, drawn before."""
    draws = torch.Generator().manual_seed(0)
    ids = KeyedJaggedTensor(
        keys=["item_id"],
        values=torch.randint(rows, (BATCH_IDS,), generator=draws),
        lengths=torch.ones(BATCH_IDS, dtype=torch.int32),
    ).to(distributed.worker.device)
    dense = torch.randn(MATRIX // 2, MATRIX, generator=draws).to(distributed.worker.device)

    def step() -> None:
        distributed.optimizer.zero_grad()
        distributed.model(ids, dense).backward()
        distributed.optimizer.step()

    return step


def dd_s(checkpoint: Path) -> float:
    """Seconds in which ``dd`` copies the checkpoint's tensors and flushes them."""
    (source,) = checkpoint.glob("*.distcp")
    target = checkpoint.parent / "copy"
    words = ["dd", f"if={source}", f"of={target}", "bs=4M", "conv=fsync", "status=none"]
    return seconds(lambda: subprocess.run(words, check=True), torch.device("cpu"))


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, until what it gave a device is done."""
    start = now(device)
    work()
    return now(device) - start
