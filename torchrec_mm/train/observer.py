"""Shows training while it goes on: progress bar, metrics.jsonl, TensorBoard, trace, hangs.

A step costs a look at the clock; figures are reduced over ranks once a window.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import log
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.metrics.binned_auc import BinnedAuc
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.profiler import StepProfiler
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.runs.scalars import Scalars
from torchrec_mm.runs.tensor_shards import model_shards
from torchrec_mm.runs.watchdog import Watchdog


class Observer:
    """One run's. A context around its epochs; only the first rank writes.

    tensorboard/ in the run folder gets, at the end of each window: loss, auc and
    normalized_entropy (but of weighted impressions, whose base rate is not counted) of the window's
    impressions before they were learned from, impressions_per_s
    of all ranks, vector_coverage, the loop's learning_rate of the dense part; and table_bytes once.
    trace.json gets the profiler's trace.
    """

    def __init__(
        self, run: RunFolder, position: Position, *, hang_timeout_s: float, profile_steps: int
    ) -> None:
        """Wait to be entered.

        Args:
            run: where to write. position: where training begins, after a resume.
            hang_timeout_s: a step that takes longer prints all stacks; 0 never.
            profile_steps: how many steps the first rank traces; 0 for none.
        """
        self.run = run
        self.is_first = run.worker.is_first
        self.start = position.step
        self.watchdog = Watchdog(hang_timeout_s)
        self.profiler = StepProfiler(run.path / "trace.json", profile_steps if self.is_first else 0)
        self._vector_mask: Tensor | None = None
        self._has_weights = False

    def __enter__(self) -> "Observer":
        self._open = ExitStack()
        self._open.enter_context(self.profiler)
        self._scalars = self._open.enter_context(Scalars(self.run, self.start))
        return self

    def __exit__(self, *raised: Any) -> None:
        self._open.__exit__(*raised)

    @contextmanager
    def steps(self, ends: Iterable[int], epoch: int, counted: BinnedAuc) -> Iterator[Iterator[int]]:
        """The steps that are left of an epoch, watched. Collective.

        Args:
            ends: what to iterate over. epoch: from 0. counted: the epoch's impressions so far.
        """
        self._counts, self._began = over_ranks(counted), time.perf_counter()
        self.bar = tqdm(
            ends, desc=f"epoch {epoch + 1}", unit="step", disable=None if self.is_first else True
        )
        with self.bar, self.watchdog:
            yield self._heard(self.bar)

    def _heard(self, steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            yield step
            self.watchdog.alive()
            self.profiler.step()

    def seen(self, batches: Iterable[RequestBatch]) -> Iterator[RequestBatch]:
        """The same batches; the latest one's items are looked at when a window ends."""
        for batch in batches:
            self._vector_mask, self._has_weights = batch.vector_mask, batch.weights is not None
            yield batch

    def end_window(self, step: int, loss: float, counted: BinnedAuc) -> None:
        """Show the steps since the last call. Collective.

        Args:
            step: done since the run began. loss: mean of the window's global batches.
            counted: the epoch's impressions so far.
        """
        counts, now = over_ranks(counted), time.perf_counter()
        window, seconds = counts - self._counts, now - self._began
        self._counts, self._began = counts, now
        if not self.is_first:
            return
        speed = int(window.sum()) / seconds
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:,.0f} impressions/s", refresh=False)
        self.run.log(step=step, loss=loss)
        figures = window_figures(window, loss) | {"impressions_per_s": speed}
        if self._has_weights:
            del figures["normalized_entropy"]
        if self._vector_mask is not None:
            figures["vector_coverage"] = self._vector_mask.float().mean().item()
        self.write(step, figures)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Put scalars into TensorBoard, those that are numbers; the first rank's alone."""
        self._scalars.write(step, figures)


def over_ranks(counted: BinnedAuc) -> Tensor:
    """(2, COARSE_BINS) int64 of all ranks; a rank's own counts are untouched. Collective."""
    total = counted.coarse()
    dist.all_reduce(total)
    return total


def window_figures(counts: Tensor, loss: float) -> dict[str, float]:
    """Loss, AUC, normalized entropy of a window: ``counts`` (2, bins), its mean ``loss``."""
    auc = BinnedAuc(counts.device)
    auc.counts = counts
    others, clicks = counts.sum(dim=1).tolist()
    entropy = 0.0
    if others and clicks:
        rate = clicks / (clicks + others)
        entropy = -(rate * log(rate) + (1 - rate) * log(1 - rate))
    return {
        "loss": loss,
        "auc": auc.value(),
        "normalized_entropy": loss / entropy if entropy else float("nan"),
    }


def table_bytes(distributed: DistributedModel) -> int:
    """Bytes of the fullest rank's share of the tables, optimizer state included. Collective."""
    shards = model_shards(distributed.model, distributed.optimizer)
    mine = sum(
        tensor.nbytes
        for name, own in shards.items()
        if "embedding_bags." in name
        for _, tensor in own.parts
    )
    most = torch.tensor(mine, device=distributed.worker.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
