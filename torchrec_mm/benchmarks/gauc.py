"""Exact GAUC: ours against a loop over users, and the seconds and memory of a full-size test set.

Both sides get the same impressions on one thread. Ours is measured twice: on arrays in memory, and
on impressions that arrive a batch at a time and pass through files.
"""

import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.config import check_fields
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.impression_files import ImpressionFiles
from torchrec_mm.metrics.order import ALL
from torchrec_mm.metrics.streamed import measure_scores, measure_users
from torchrec_mm.reporting.machine import describe_machine

PIECE = 1 << 20  # made up at once
BATCH = 10_000  # added at once


@dataclass(frozen=True, kw_only=True)
class GaucConfig(BenchmarkConfig):
    """Seconds of exact GAUC on one thread, against a Python loop over users; then at full size."""

    impressions: int = 2_300_000
    """Impressions that both sides get."""
    full_impressions: int = 23_000_000
    """Impressions that ours alone gets, AUC and log loss included, through files."""
    impressions_per_user: int = 11
    """Mean number of a user's impressions, which arrive in no order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("impressions", "full_impressions", "impressions_per_user")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)


Impressions = tuple[np.ndarray, np.ndarray, np.ndarray]
Measure = Callable[[Iterator[Impressions]], tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """One run: seconds without making the data, bytes of resident memory at its peak, GAUC."""

    seconds: float
    peak_bytes: int
    gauc: float


def compare(config: GaucConfig) -> Iterator[dict[str, Any]]:
    """In memory and through files against the loop, then through files at full size."""
    sides: dict[str, Measure] = {"gauc": in_memory, "gauc/files": through_files, "loop": by_loop}
    fresh_sides = {n: partial(fresh, side, config.impressions, config) for n, side in sides.items()}
    runs = alternate(fresh_sides, config.runs)
    figures = [one.gauc for of_side in runs.values() for one in of_side]
    for name in ("gauc", "gauc/files"):
        yield comparison(
            name,
            "seconds",
            [one.seconds for one in runs[name]],
            [one.seconds for one in runs["loop"]],
            more_is_better=False,
            impressions=config.impressions,
            largest_difference=max(figures) - min(figures),
        )
    whole = fresh(through_files, config.full_impressions, config)
    yield {
        "benchmark": "gauc/full",
        "unit": "seconds",
        "ours": whole.seconds,
        "baseline": None,
        "ratio": None,
        "runs": 1,
        "impressions": config.full_impressions,
        "peak_bytes": whole.peak_bytes,
        "promised": 20.0,
        "machine": describe_machine(),
    }


def fresh(side: Measure, impressions: int, config: GaucConfig) -> Run:
    """One side in a process of its own, on one thread."""
    return in_fresh_process(run, side, impressions, config.impressions_per_user, threads=1)


def run(side: Measure, impressions: int, impressions_per_user: int) -> Run:
    """Measure, and remember what the process needed at most."""
    found, seconds = side(made_up(impressions, impressions_per_user))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Run(seconds, 1024 * peak_kib, found)


def made_up(impressions: int, impressions_per_user: int) -> Iterator[Impressions]:
    """Users, labels and float32 logits that tie now and then, a piece at a time."""
    num_users = max(impressions // impressions_per_user, 1)
    for start in range(0, impressions, PIECE):
        generator = np.random.default_rng([7, start])
        count = min(PIECE, impressions - start)
        users = generator.integers(0, num_users, count) * 1_000_003
        logits = np.round(generator.normal(-1.8, 1.0, count), 3).astype(np.float32)
        labels = (generator.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int8)
        yield users, labels, logits


def in_memory(pieces: Iterator[Impressions]) -> tuple[float, float]:
    """GAUC of arrays, and its seconds."""
    users, labels, logits = (np.concatenate(column) for column in zip(*pieces, strict=True))
    began = time.perf_counter()
    return gauc(users, labels, logits).gauc, time.perf_counter() - began


def through_files(pieces: Iterator[Impressions]) -> tuple[float, float]:
    """GAUC, AUC and log loss of impressions that come a batch at a time, and their seconds."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as name:
        files = ImpressionFiles(Path(name), 0)
        for users, labels, logits in pieces:
            began = time.perf_counter()
            for start in range(0, len(users), BATCH):
                part = slice(start, start + BATCH)
                files.add(users[part], labels[part], logits[part])
            seconds += time.perf_counter() - began
        began = time.perf_counter()
        files.flush()
        measure_scores(Path(name))
        found = measure_users(Path(name))[ALL].gauc
        return found, seconds + time.perf_counter() - began


def by_loop(pieces: Iterator[Impressions]) -> tuple[float, float]:
    """The usual way: group by user, then rank each user's impressions in Python; its seconds."""
    columns = zip(*pieces, strict=True)
    users, labels, logits = (np.concatenate(column).tolist() for column in columns)
    began = time.perf_counter()
    by_user: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for user, label, logit in zip(users, labels, logits, strict=True):
        by_user[user].append((logit, label))
    total = weight = 0.0
    for impressions in by_user.values():
        value = auc_by_loop(impressions)
        if value is not None:
            total += len(impressions) * value
            weight += len(impressions)
    return total / weight, time.perf_counter() - began


def auc_by_loop(impressions: list[tuple[float, int]]) -> float | None:
    """AUC of one user by ranks, ties at their mean rank; None with one label only."""
    impressions.sort()
    clicks = sum(label for _, label in impressions)
    others = len(impressions) - clicks
    if not clicks or not others:
        return None
    rank, ranks_of_clicks = 0, 0.0
    for _, tied in groupby(impressions, key=itemgetter(0)):
        labels = [label for _, label in tied]
        ranks_of_clicks += sum(labels) * (rank + (len(labels) + 1) / 2)
        rank += len(labels)
    return (ranks_of_clicks - clicks * (clicks + 1) / 2) / (clicks * others)
