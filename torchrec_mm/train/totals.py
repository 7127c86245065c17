"""Loss and AUC of training so far, in sums that survive a resume under another world size."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.metrics.binned_auc import BinnedAuc

MOST_STEPS = 100  # kept at once


@dataclass(frozen=True)
class EpochSummary:
    """Mean loss of the global batches, AUC, and number of impressions of one epoch."""

    loss: float
    auc: float
    impressions: int


class Totals:
    """Sums over the steps of an epoch: this rank's part of them.

    Each impression's logit is taken before its own update. Steps are kept, and counted together
    when someone asks: a dozen small operations a step would take longer than what they count. Sums
    that have been reduced are held by the first rank, and the others begin again at zero.

    window, epoch: (2,) float64, losses of global batches and their number; the window goes into
    the epoch when it is closed. auc: counts of the epoch's impressions.
    """

    def __init__(self, device: torch.device) -> None:
        self.window = torch.zeros(2, dtype=torch.float64, device=device)
        self.epoch = torch.zeros(2, dtype=torch.float64, device=device)
        self.auc = BinnedAuc(device)
        self.is_first = dist.get_rank() == 0
        self.world_size = dist.get_world_size()
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take a step: (), (I,), (I,)."""
        self._steps.append((loss.detach(), logits.detach(), labels))
        if len(self._steps) == MOST_STEPS:
            self.count()

    def count(self) -> None:
        """Bring the sums up to date."""
        if self._steps:
            losses, logits, labels = zip(*self._steps, strict=True)
            self.window[0] += torch.stack(losses).double().sum() / self.world_size
            self.window[1] += len(losses) * self.is_first
            self.auc.add(torch.cat(labels), torch.cat(logits))
            self._steps = []

    def close_window(self) -> float:
        """Mean loss since the last call, of this launch or the one before. Collective."""
        self.count()
        dist.all_reduce(self.window)
        loss, steps = self.window.tolist()
        if self.is_first:
            self.epoch += self.window
        self.window.zero_()
        return loss / steps

    def close_epoch(self) -> "EpochSummary":
        """What the epoch was, on the first rank, after ``close_window``; starts over. Collective.

        The figures of the other ranks mean nothing.
        """
        self.reduce()
        loss, steps = self.epoch.tolist()
        summary = EpochSummary(loss / max(steps, 1.0), self.auc.value(), self.impressions())
        self.clear()
        return summary

    def clear(self) -> None:
        """Begin an epoch."""
        for sums in self.tensors().values():
            sums.zero_()

    def reduce(self) -> None:
        """Gather all sums on the first rank. Collective."""
        for sums in self.tensors().values():
            dist.all_reduce(sums)
            if not self.is_first:
                sums.zero_()

    def impressions(self) -> int:
        """Impressions of the epoch that are counted on this rank."""
        self.count()
        return int(self.auc.counts.sum())

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name; filling the first rank's undoes a stop right after ``reduce``."""
        self.count()
        return {"window": self.window, "epoch": self.epoch, "auc": self.auc.counts}
