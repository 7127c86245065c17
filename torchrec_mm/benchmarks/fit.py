"""What a step costs besides TorchRec: guards, metrics, logging, position, stop, progress bar.

Both sides train the same model on the same batches of one loader. Ours is ``train.fit``, the
baseline a loop around ``pipeline.progress`` and nothing else.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch.distributed as dist

from torchrec_mm.benchmarks.harness import alternate, comparison, on_fresh_ranks
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.benchmarks.ranking.ours import Ours
from torchrec_mm.benchmarks.ranking.sides import WARM_UP_STEPS, RankerTask
from torchrec_mm.config import check_fields
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import process_group, reserve_reader_core
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.train.fit import fit
from torchrec_mm.train.settings import TrainSettings

PROMISED = 0.95


@dataclass(frozen=True, kw_only=True)
class FitConfig(DataConfig):
    """Training steps a second of the fit loop, against a bare loop around TorchRec's pipeline.

    Timed from step to step after warming up, in one epoch of a fresh process.
    """

    items: int = 100_000
    """Items of the data set, at least 100."""
    behaviours: int = 100
    """Most behaviours of a user."""
    batch_impressions: int = 1000
    """Impressions in a global batch."""
    world_size: int = 1
    """Ranks on this machine."""
    threads: int = max(1, len(os.sched_getaffinity(0)))
    """Threads of each rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("batch_impressions", "world_size", "threads")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)


@dataclass(frozen=True)
class Timed(DistributedModel):
    """The same model, which notes when each step begins."""

    starts: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, distributed: DistributedModel) -> "Timed":
        """What was distributed before."""
        return cls(*(getattr(distributed, each.name) for each in fields(distributed)))

    def pipeline(self) -> Any:
        """A fresh one, watched."""
        pipeline: Any = super().pipeline()
        progress = pipeline.progress

        def timed(batches: Iterator[Any]) -> Any:
            self.starts.append(time.perf_counter())
            return progress(batches)

        pipeline.progress = timed
        return pipeline

    def steps_per_s(self) -> float:
        """From the start of a step to the start of the next."""
        starts = self.starts[WARM_UP_STEPS:]
        return (len(starts) - 1) / (starts[-1] - starts[0])


def compare(config: FitConfig) -> Iterator[dict[str, Any]]:
    """One comparison."""
    with ranker_data(config) as folder:
        task = RankerTask(
            folder=folder,
            batch_impressions=config.batch_impressions,
            seconds=0.0,
            epochs=1,
            embedding_dim=16,
            seed=config.seed,
            baseline_workers=0,
        )

        def rate(side: Callable[[RankerTask], float]) -> Callable[[], float]:
            size, threads = config.world_size, config.threads
            return lambda: on_fresh_ranks(side, task, world_size=size, threads=threads)[0]

        rates = alternate({"ours": rate(fitted), "baseline": rate(bare)}, config.runs)
    yield comparison(
        "fit",
        "steps/s",
        **rates,
        more_is_better=True,
        batch_impressions=config.batch_impressions,
        world_size=config.world_size,
        threads=config.threads,
        promised=PROMISED,
    )


def fitted(task: RankerTask) -> float:
    """Steps a second of one epoch of ``fit``; one rank's part."""
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        side = Ours(task, worker)
        distributed = Timed.of(side.distributed)
        folder = [tempfile.mkdtemp(dir=task.folder) if worker.is_first else ""]
        dist.broadcast_object_list(folder)
        settings = TrainSettings(epochs=task.epochs, seed=task.seed)
        fit(distributed, side.loader(side.data), RunFolder(Path(folder[0]), worker), settings)
        return distributed.steps_per_s()


def bare(task: RankerTask) -> float:
    """Steps a second of one epoch of the bare loop; one rank's part."""
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        side = Ours(task, worker)
        distributed = Timed.of(side.distributed)
        pipeline = distributed.pipeline()
        batches = side.loader(side.data).epoch(0)
        for _ in side.loader(side.data).ends(0):
            pipeline.progress(batches)
        return distributed.steps_per_s()
