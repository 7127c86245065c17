"""Training a ranker over lifelong behaviours, from Parquet to the updated tables.

Ours is ``apps.train_ranker --method muse`` on an encoded data set, the baseline is in
``ranking/baseline.py``; both learn from the same users of one data set of TAOBAO-MM's shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torchrec_mm.benchmarks.harness import alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking import baseline as baseline_side
from torchrec_mm.benchmarks.ranking import ours as our_side
from torchrec_mm.benchmarks.ranking.command import command_speed
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data, true_auc
from torchrec_mm.benchmarks.ranking.sides import RankerTask
from torchrec_mm.benchmarks.ranking.training import TrainingConfig, rate
from torchrec_mm.config import check_fields


@dataclass(frozen=True, kw_only=True)
class RankerConfig(DataConfig, TrainingConfig):
    """Impressions a second in training from Parquet, 1000 behaviours a user, and the AUC reached.

    The baseline is the shape of public reference code: rows joined on disk and read through
    pandas, dense padded histories, nn.Embedding(sparse=True) and SparseAdam under DDP, no masks.
    """

    embedding_dim: int = 16
    """Width of every table on both sides; a multiple of 4."""
    batch_impressions: int = 1000
    """Impressions in a global batch, of both sides."""
    best_batch_impressions: int = 5500
    """Impressions in a global batch, of ours alone in the second comparison."""
    seconds: float = 25.0
    """Length of each measurement, after warming up."""
    baseline_workers: int = 2
    """Processes that read ahead for each rank of the baseline."""
    table_rows: tuple[int, ...] = ()
    """Compare our speed at the most of these rows of the items' table with that at the least."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("batch_impressions", "best_batch_impressions")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")
        if self.table_rows:
            check_fields(self, lambda x: x >= 1, "at least 1", "table_rows")


def compare(config: RankerConfig) -> Iterator[dict[str, Any]]:
    """Speed at the same batch, at our best batch and beside the command; AUC; table sizes."""
    with ranker_data(config) as folder:
        task = RankerTask(
            folder=folder,
            batch_impressions=config.batch_impressions,
            seconds=config.seconds,
            epochs=config.epochs,
            embedding_dim=config.embedding_dim,
            seed=config.seed,
            baseline_workers=config.baseline_workers,
        )
        yield from compare_speed(config, task)
        if config.epochs:
            yield compare_quality(config, task)
            yield compare_batches(config, task)
        if config.table_rows:
            yield compare_table_rows(config, task)


def compare_speed(config: RankerConfig, task: RankerTask) -> Iterator[dict[str, Any]]:
    """Impressions a second."""
    best = replace(task, batch_impressions=config.best_batch_impressions)
    sides = {
        "ours": rate(our_side.speed, task, config),
        "best": rate(our_side.speed, best, config),
        "baseline": rate(baseline_side.speed, task, config),
    }
    if config.baseline_command:
        sides["command"] = lambda: command_speed(config.baseline_command, config.threads)
    rates = alternate(sides, config.runs)
    for name, ours, baseline, batch in (
        ("ranker", "ours", "baseline", task.batch_impressions),
        ("ranker/best_batch", "best", "baseline", best.batch_impressions),
        ("ranker/command", "ours", "command", task.batch_impressions),
    ):
        if baseline in rates:
            yield comparison(
                name,
                "impressions/s",
                rates[ours],
                rates[baseline],
                more_is_better=True,
                batch_impressions=batch,
                world_size=config.world_size,
                threads=config.threads,
            )


def compare_quality(config: RankerConfig, task: RankerTask) -> dict[str, Any]:
    """AUC on the same test set after the same impressions, one rank each."""
    ours, baseline = (
        in_fresh_process(side.quality, task, threads=config.threads)
        for side in (our_side, baseline_side)
    )
    return comparison(
        "ranker/auc",
        "AUC",
        [ours.auc],
        [baseline.auc],
        more_is_better=True,
        true_auc=true_auc(task.folder),
        ours_gauc=ours.gauc,
        baseline_gauc=baseline.gauc,
        impressions=ours.impressions,
        baseline_impressions=baseline.impressions,
        epochs=config.epochs,
    )


def compare_batches(config: RankerConfig, task: RankerTask) -> dict[str, Any]:
    """Our AUC at the default flags, at our best batch against at the same batch."""
    small = replace(task, default_rates=True)
    large = replace(small, batch_impressions=config.best_batch_impressions)
    at_large, at_small = (
        in_fresh_process(our_side.quality, size, threads=config.threads) for size in (large, small)
    )
    return comparison(
        "ranker/batch_auc",
        "AUC",
        [at_large.auc],
        [at_small.auc],
        more_is_better=True,
        ours_gauc=at_large.gauc,
        baseline_gauc=at_small.gauc,
        batch_impressions=large.batch_impressions,
        baseline_batch_impressions=small.batch_impressions,
        epochs=config.epochs,
    )


def compare_table_rows(config: RankerConfig, task: RankerTask) -> dict[str, Any]:
    """Our speed with the largest and with the smallest table; 1 is the best ratio there is."""
    least, most = min(config.table_rows), max(config.table_rows)
    rates = alternate(
        {
            rows: rate(our_side.speed, replace(task, table_rows=rows), config)
            for rows in (most, least)
        },
        config.runs,
    )
    return comparison(
        "ranker/table_rows",
        "impressions/s",
        rates[most],
        rates[least],
        more_is_better=True,
        table_rows=most,
        baseline_table_rows=least,
        promised=0.9,
    )
