"""Training on rows of Criteo's shape: numbers, categories and bags, and no behaviour.

Ours is ``apps.train_ranker`` with its own flags, method id, from Parquet; the baseline is TorchRec
as its own examples use it, from arrays in memory (``ranking/criteo_baseline.py``). Both learn from
the same **drawn** rows, at the same rates, with tables and layers of the same widths.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torchrec_mm.benchmarks.harness import alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking import criteo_baseline as baseline_side
from torchrec_mm.benchmarks.ranking import short_ours as our_side
from torchrec_mm.benchmarks.ranking.command import command_speed
from torchrec_mm.benchmarks.ranking.criteo_data import CriteoDataConfig, criteo_data
from torchrec_mm.benchmarks.ranking.sides import ShortTask
from torchrec_mm.benchmarks.ranking.training import TrainingConfig, rate
from torchrec_mm.config import check_fields


@dataclass(frozen=True, kw_only=True)
class CriteoConfig(CriteoDataConfig, TrainingConfig):
    """Impressions a second in training on 13 numbers and 26 categories, 3 of them bags of 10.

    Ours has the default flags of apps.train_ranker but for its batch. The baseline is DLRM in a
    plain TorchRec loop: EmbeddingBagCollection, DistributedModelParallel, row-wise Adagrad, Adam.
    The data are drawn.
    """

    batch_impressions: int = 512
    """Impressions in a global batch of both sides."""
    large_batch_impressions: int = 4096
    """The same in the comparisons that end in /large."""
    seconds: float = 10.0
    """Length of each measurement, after warming up."""
    baseline_workers: int = 0
    """None: rows of the baseline lie in memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("batch_impressions", "large_batch_impressions")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)
        check_fields(self, lambda x: x == 0, "0", "baseline_workers")


def compare(config: CriteoConfig) -> Iterator[dict[str, Any]]:
    """Speed and log loss at both batches."""
    with criteo_data(config) as folder:
        task = ShortTask(
            folder=folder, seconds=config.seconds, epochs=config.epochs, seed=config.seed
        )
        tasks = {
            "": replace(task, batch_impressions=config.batch_impressions),
            "/large": replace(task, batch_impressions=config.large_batch_impressions),
        }
        yield from compare_speed(config, tasks)
        if config.epochs:
            yield from compare_loss(config, tasks)


def compare_speed(config: CriteoConfig, tasks: dict[str, ShortTask]) -> Iterator[dict[str, Any]]:
    """Impressions a second."""
    sides = {}
    for size, task in tasks.items():
        sides[f"ours{size}"] = rate(our_side.speed, task, config)
        sides[f"baseline{size}"] = rate(baseline_side.speed, task, config)
    if config.baseline_command:
        sides["command"] = lambda: command_speed(config.baseline_command, config.threads)
    rates = alternate(sides, config.runs)
    compared = [(f"criteo{size}", size, f"baseline{size}") for size in tasks]
    if "command" in rates:
        compared.append(("criteo/command", "", "command"))
    for name, size, baseline in compared:
        yield comparison(
            name,
            "impressions/s",
            rates[f"ours{size}"],
            rates[baseline],
            more_is_better=True,
            batch_impressions=tasks[size].batch_impressions,
            world_size=config.world_size,
            threads=config.threads,
        )


def compare_loss(config: CriteoConfig, tasks: dict[str, ShortTask]) -> Iterator[dict[str, Any]]:
    """Log loss on the same test set after the same impressions, one rank each."""
    for size, task in tasks.items():
        ours, baseline = (
            in_fresh_process(side.quality, task, threads=config.threads)
            for side in (our_side, baseline_side)
        )
        yield comparison(
            f"criteo{size}/log_loss",
            "nats",
            [ours.log_loss],
            [baseline.log_loss],
            more_is_better=False,
            ours_auc=ours.auc,
            baseline_auc=baseline.auc,
            impressions=ours.impressions,
            baseline_impressions=baseline.impressions,
            batch_impressions=task.batch_impressions,
            epochs=config.epochs,
            threads=config.threads,
        )
