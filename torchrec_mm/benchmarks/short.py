"""Training a ranker over short histories, from Parquet to the updated tables.

Ours is ``apps.train_ranker`` with its own flags, methods id and simtier+make; the baseline is in
``ranking/short_baseline.py``. Both learn from one **simulated** market of MovieLens's shape.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torchrec_mm.benchmarks.harness import alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking import short_baseline as baseline_side
from torchrec_mm.benchmarks.ranking import short_ours as our_side
from torchrec_mm.benchmarks.ranking.command import command_speed
from torchrec_mm.benchmarks.ranking.short_data import ShortDataConfig, short_data, true_auc
from torchrec_mm.benchmarks.ranking.sides import Quality, ShortTask
from torchrec_mm.benchmarks.ranking.training import TrainingConfig, rate
from torchrec_mm.config import check_fields

METHODS = ("id", "simtier+make")


@dataclass(frozen=True, kw_only=True)
class ShortConfig(ShortDataConfig, TrainingConfig):
    """Impressions a second in training from Parquet, 50 behaviours a request, and the AUC reached.

    Ours has the default flags of apps.train_ranker, MAKE trained beforehand by those of
    apps.train_make. The baseline is the shape of FuxiCTR's DIN: one row an impression with its
    padded history, nn.Embedding with dense gradients, one Adam for everything. The data are
    simulated.
    """

    baseline_batch_impressions: int = 512
    """Impressions in a global batch of the baseline, beside our default batch."""
    large_batch_impressions: int = 4096
    """Impressions in a global batch of both sides, in the comparisons that end in /large."""
    seconds: float = 10.0
    """Length of each measurement, after warming up."""
    baseline_workers: int = 1
    """Processes that read ahead for each rank of the baseline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("baseline_batch_impressions", "large_batch_impressions")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)


def compare(config: ShortConfig) -> Iterator[dict[str, Any]]:
    """Speed at both sides' usual batch, at a large one and beside the command; AUC."""
    with short_data(config) as folder:
        task = ShortTask(
            folder=folder,
            seconds=config.seconds,
            epochs=config.epochs,
            seed=config.seed,
            baseline_workers=config.baseline_workers,
        )
        yield from compare_speed(config, task)
        if config.epochs:
            yield from compare_quality(config, task)


def compare_speed(config: ShortConfig, task: ShortTask) -> Iterator[dict[str, Any]]:
    """Impressions a second."""
    usual, large = of_baseline(config, task)
    ours = {"": task, "/large": large}
    sides = {
        "baseline": rate(baseline_side.speed, usual, config),
        "baseline/large": rate(baseline_side.speed, large, config),
    }
    for size, method in product(ours, METHODS):
        sides[method + size] = rate(our_side.speed, replace(ours[size], method=method), config)
    if config.baseline_command:
        sides["command"] = lambda: command_speed(config.baseline_command, config.threads)
    rates = alternate(sides, config.runs)
    for (kind, size, baseline, batch), method in product(
        (
            ("", "", "baseline", usual.batch_impressions),
            ("/large", "/large", "baseline/large", large.batch_impressions),
            ("/command", "", "command", None),
        ),
        METHODS,
    ):
        if baseline in rates:
            yield comparison(
                f"short/{method}{kind}",
                "impressions/s",
                rates[method + size],
                rates[baseline],
                more_is_better=True,
                batch_impressions=our_side.mean_batch(ours[size]),
                baseline_batch_impressions=batch,
                world_size=config.world_size,
                threads=config.threads,
            )


def compare_quality(config: ShortConfig, task: ShortTask) -> Iterator[dict[str, Any]]:
    """AUC on the same test set after the same impressions, one rank each.

    Ours at its default batch, the baseline at that of its two which reaches more.
    """

    def measure(quality: Callable[[ShortTask], Quality], task: ShortTask) -> Quality:
        return in_fresh_process(quality, task, threads=config.threads)

    tried = [(measure(baseline_side.quality, each), each) for each in of_baseline(config, task)]
    baseline, used = max(tried, key=lambda pair: pair[0].auc)
    for method in METHODS:
        ours = measure(our_side.quality, replace(task, method=method))
        yield comparison(
            f"short/{method}/auc",
            "AUC",
            [ours.auc],
            [baseline.auc],
            more_is_better=True,
            true_auc=true_auc(task.folder),
            ours_gauc=ours.gauc,
            baseline_gauc=baseline.gauc,
            impressions=ours.impressions,
            baseline_impressions=baseline.impressions,
            batch_impressions=our_side.mean_batch(task),
            baseline_batch_impressions=used.batch_impressions,
            epochs=config.epochs,
            threads=config.threads,
        )


def of_baseline(config: ShortConfig, task: ShortTask) -> tuple[ShortTask, ShortTask]:
    """The baseline's usual batch, and the large one of both sides."""
    return (
        replace(task, batch_impressions=config.baseline_batch_impressions),
        replace(task, batch_impressions=config.large_batch_impressions),
    )
