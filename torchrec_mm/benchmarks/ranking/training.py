"""What the benchmarks of training a ranker share: how long, on how many ranks, beside what."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torchrec_mm.benchmarks.harness import BenchmarkConfig, on_fresh_ranks
from torchrec_mm.config import check_fields

TaskT = TypeVar("TaskT")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(BenchmarkConfig):
    """The flags of a measurement, whatever is learned from."""

    seconds: float
    """Length of each measurement, after warming up."""
    world_size: int = 1
    """Ranks on this machine."""
    threads: int = max(1, len(os.sched_getaffinity(0)))
    """Threads of each rank."""
    baseline_workers: int
    """Processes that read ahead for each rank of the baseline."""
    baseline_command: str = ""
    """Command without a shell to time beside ours; it prints one JSON line, impressions_per_s."""
    epochs: int = 1
    """Passes over the training requests before AUC is compared; 0 leaves that out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "world_size", "threads")
        check_fields(self, lambda x: x >= 0, "at least 0", "baseline_workers", "epochs")
        check_fields(self, lambda x: x > 0, "above 0", "seconds")


def rate(
    speed: Callable[[TaskT], float], task: TaskT, config: TrainingConfig
) -> Callable[[], float]:
    """One measurement, still to be taken."""
    return lambda: on_fresh_ranks(
        speed, task, world_size=config.world_size, threads=config.threads
    )[0]
