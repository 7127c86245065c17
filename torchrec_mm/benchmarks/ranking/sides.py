"""What both sides of a ranking benchmark are given, and how their speed is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from torchrec_mm.benchmarks.harness import now
from torchrec_mm.parallel.process_group import host_group

WARM_UP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class RankerTask:
    """One measurement of the ranker benchmark, sent to a fresh process.

    folder: what ``ranker_data`` made. batch_impressions: about as many in a global batch.
    seconds: of the measurement, after warming up. epochs: of training before evaluation.
    embedding_dim: of every table. seed: of weights and order. baseline_workers: processes that
    read ahead for the baseline. table_rows: of our table of items, 0 for as many as it has ids.
    default_rates: ours learns as ``apps.train_ranker`` does by default, not at rates for this data.
    """

    folder: Path
    batch_impressions: int
    seconds: float
    epochs: int
    embedding_dim: int
    seed: int
    baseline_workers: int
    table_rows: int = 0
    default_rates: bool = False


@dataclass(frozen=True, kw_only=True)
class ShortTask:
    """One measurement of the short benchmark, sent to a fresh process.

    folder: what ``short_data`` made. seconds: of the measurement, after warming up. epochs: of
    training before evaluation. seed: of weights and order. batch_impressions: about as many in a
    global batch, None for our default batch. method: of ours. baseline_workers: processes that
    read ahead for the baseline.
    """

    folder: Path
    seconds: float
    epochs: int
    seed: int
    batch_impressions: int | None = None
    method: str = "id"
    baseline_workers: int = 0


@dataclass(frozen=True)
class Quality:
    """Exact metrics on the test set after training on so many impressions."""

    auc: float
    gauc: float
    impressions: int
    log_loss: float = float("nan")


def steady_rate(step: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Impressions a second of all ranks together, for at least ``seconds`` after warming up.

    Collective: all ranks stop after the same step.

    Args:
        step: does one step of this rank and returns its number of impressions.
        device: that it works on, and is not waited for in between.
    """
    together = host_group()
    for _ in range(WARM_UP_STEPS):
        step()
    dist.barrier(together)
    start = now(device)
    impressions = 0
    late = torch.zeros(1)
    while not late:
        impressions += step()
        late[0] = time.perf_counter() - start >= seconds
        dist.all_reduce(late, group=together)
    elapsed = now(device) - start
    total = torch.tensor(float(impressions), dtype=torch.float64)
    dist.all_reduce(total, group=together)
    return total.item() / elapsed
