"""Logits of a whole data set, collected over batches and ranks."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.parallel.strides import with_equal_strides


@dataclass(frozen=True)
class Predictions:
    """One entry an impression, requests in their order on disk, candidates in theirs.

    rows: (n,) int64 request of each impression. labels: (n,) int8. logits: (n,) float32.
    """

    rows: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


class PredictionCollector:
    """Keeps the outputs of each step until the data set is through."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor, candidate_mask: Tensor, rows: Tensor) -> None:
        """Take one batch: (R, C), (R, C), (R, C) bool and (R,); padding is dropped."""
        per_impression = rows[:, None].expand_as(candidate_mask)[candidate_mask]
        self.parts.append(
            (per_impression.cpu(), labels[candidate_mask].cpu(), logits[candidate_mask].cpu())
        )

    def gather(self) -> Predictions | None:
        """All ranks' impressions on the first rank, None on the others. Collective."""
        rows, labels, logits = (
            torch.cat(column).numpy() for column in zip(*self.parts, strict=True)
        )
        mine = (rows, labels.astype(np.int8), logits)
        everyone = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(mine, everyone)
        if everyone is None:
            return None
        rows, labels, logits = (np.concatenate(column) for column in zip(*everyone, strict=True))
        order = np.argsort(rows, kind="stable")
        return Predictions(rows[order], labels[order], logits[order])


def predict(distributed: DistributedModel, loader: RequestLoader) -> Predictions | None:
    """Score a data set without learning from it: predictions on the first rank. Collective."""
    collector = PredictionCollector()
    distributed.model.eval()
    with torch.no_grad():
        for batch in with_equal_strides(loader.epoch(0)):
            _, (_, *scored) = distributed.model(batch.to(distributed.worker.device))
            collector.add(*scored)
    distributed.model.train()
    return collector.gather()
