"""Guards against training that no longer learns: a loss that is no number, logits all alike."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.data.stream.loader import RequestData
from torchrec_mm.errors import TrainingDiverged
from torchrec_mm.runs.position import Position

MOST_STEPS = 100  # kept at once
ENOUGH_IMPRESSIONS = 1000  # alike, to be more than a coincidence
NAMED_REQUESTS = 5


@dataclass(frozen=True)
class Step:
    """What a step left behind; shapes as in ``RankingOutputs``. position: before the step."""

    position: Position
    loss: Tensor
    logits: Tensor
    offsets: Tensor
    rows: Tensor


class Guard:
    """Keeps what the steps of a window left behind, and looks at all of it at once.

    So a step costs no wait for the device, and still the first bad step is found.
    """

    def __init__(
        self, data: RequestData | None, last_checkpoint: Callable[[], Path | None]
    ) -> None:
        """Begin a window.

        Args:
            data: whose requests are learned from, for the names of files; before there is a step.
            last_checkpoint: the latest on disk. Collective.
        """
        self.data = data
        self.last_checkpoint = last_checkpoint
        self.steps: list[Step] = []
        self.warned = False
        self._forget_logits()

    def add(self, step: Step) -> None:
        """Keep a step. Every ``MOST_STEPS`` steps as collective as ``check``."""
        self.steps.append(step)
        if len(self.steps) == MOST_STEPS:
            self.check()

    def check(self) -> None:
        """Judge what is kept and forget it. Collective; call it before a checkpoint is taken.

        Warns once the logits of ``ENOUGH_IMPRESSIONS`` impressions in a row are the same number.

        Raises:
            TrainingDiverged: on every rank, with the same words.
        """
        if not self.steps:
            return
        logits = torch.cat([step.logits for step in self.steps])
        sums = torch.stack(
            [step.loss.double() for step in self.steps] + [logits.new_tensor(len(logits)).double()]
        )
        dist.all_reduce(sums)
        *losses, impressions = sums.tolist()
        for step, loss in zip(self.steps, losses, strict=True):
            if not np.isfinite(loss):
                raise TrainingDiverged(self._in_words(step, loss))
        self.steps = []
        self._warn_if_alike(logits, int(impressions))

    def _forget_logits(self) -> None:
        self.low, self.high, self.impressions = inf, -inf, 0

    def _warn_if_alike(self, logits: Tensor, impressions: int) -> None:
        extremes = torch.tensor([-inf, -inf], dtype=torch.float64, device=logits.device)
        if len(logits):
            extremes = torch.stack([-logits.min(), logits.max()]).double()
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        low, high = -extremes[0].item(), extremes[1].item()
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.impressions += impressions
        if self.impressions < ENOUGH_IMPRESSIONS:
            return
        if self.low == self.high and not self.warned and dist.get_rank() == 0:
            logging.getLogger(__name__).warning(
                "predictions are constant: the last %d impressions all got the logit %g",
                self.impressions,
                self.low,
            )
        self.warned |= self.low == self.high
        self._forget_logits()

    def _in_words(self, step: Step, loss: float) -> str:
        """Where the loss was lost. Collective."""
        assert self.data is not None  # there was a step
        rows, offsets = step.rows.cpu(), step.offsets.cpu()
        impressions = (~step.logits.isfinite()).nonzero().flatten().cpu()
        broken = torch.zeros(len(rows), dtype=torch.bool)
        broken[torch.searchsorted(offsets, impressions, right=True) - 1] = True
        if not step.loss.isfinite() and not broken.any():
            broken[:] = True
        everyone: list[list[int]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyone, rows[broken].tolist())
        checkpoint = self.last_checkpoint()
        return (
            f"loss became {loss} in step {step.position.step + 1} (epoch "
            f"{step.position.epoch + 1}, after {step.position.requests_done} of its requests), "
            f"at {name_requests(sorted(sum(everyone, [])), self.data)}; last good checkpoint: "
            f"{checkpoint or 'none'}"
        )


def name_requests(rows: list[int], data: RequestData) -> str:
    """The first few of ``rows`` and the files that they are in, in words."""
    named = rows[:NAMED_REQUESTS]
    more = f" and {len(rows) - len(named)} more" if len(rows) > len(named) else ""
    groups = np.unique(np.searchsorted(data.group_starts, named, side="right") - 1)
    places = [f"{data.groups[g].file.name} row group {data.groups[g].index}" for g in groups]
    return f"requests {', '.join(map(str, named))}{more} ({', '.join(places)})"
