"""Figures of one space of vectors; the ranks are shared out over the processes.

Shape letters: N items, Q held-out searches, S of them that count, H hard-negative slots, D width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.metrics.retrieval import (
    hard_negative_accuracy,
    mean_reciprocal_rank,
    purchased_ranks,
    recall_at,
)
from torchrec_mm.metrics.sphere import alignment, mean_cosine, uniformity
from torchrec_mm.parallel.process_group import Worker


@dataclass(frozen=True)
class SpaceSearches:
    """The searches whose query and purchased item both have a vector in this space.

    items: (N, D). present: (N,) bool. queries: (S, D). purchased: (S,) and hard: (S, H) rows of
    the items, hard -1 in empty slots. Vectors stay on the device they came on, all else on the CPU.
    """

    items: Tensor
    present: Tensor
    queries: Tensor
    purchased: Tensor
    hard: Tensor

    @classmethod
    def that_count(
        cls,
        items: Tensor,
        present: Tensor,
        queries: Tensor,
        query_mask: Tensor,
        purchased: Tensor,
        hard: Tensor,
    ) -> "SpaceSearches":
        """From all Q searches."""
        present, purchased, hard = present.cpu(), purchased.cpu(), hard.cpu()
        usable = query_mask.cpu() & present[purchased]
        asked = queries[usable.to(queries.device)]
        return cls(items, present, asked, purchased[usable], hard[usable])

    def sphere_figures(self) -> dict[str, Any]:
        """Items with a vector, and how they and queries lie; InputError for one not finite."""
        bought = self.items[self.purchased].to(self.queries.device)
        figures = {
            "items": int(self.present.sum()),
            "alignment": alignment(self.queries, bought),
            "uniformity": uniformity(self.items, self.present),
            "mean_cosine": mean_cosine(self.items, self.present),
        }
        for name, figure in figures.items():
            if figure is not None and not math.isfinite(figure):
                raise InputError(f"item and query vectors must be finite, got {name} {figure}")
        return figures

    def ranks(self, worker: Worker) -> Tensor:
        """(S,) float64 ranks of the purchased items, equal on all processes."""

        def ranks(mine: slice) -> Tensor:
            queries = self.queries[mine].to(worker.device)
            return purchased_ranks(queries, self.items, self.present, self.purchased[mine])

        return shared_ranks(ranks, len(self.queries), worker)

    def hard_negative_accuracy(self, worker: Worker) -> float | None:
        """As of the function of that name."""
        queries = self.queries.to(worker.device)
        return hard_negative_accuracy(queries, self.items, self.present, self.purchased, self.hard)


def shared_ranks(ranks: Callable[[slice], Tensor], count: int, worker: Worker) -> Tensor:
    """Compute a slice on every process and give all of them the whole. Collective.

    Args:
        ranks: float64 ranks of a slice of the queries, on the worker's device.
        count: queries in all.
        worker: this process.

    Returns:
        (count,) float64 on the CPU.
    """
    begin, end = (r * count // worker.world_size for r in (worker.rank, worker.rank + 1))
    whole = torch.zeros(count, dtype=torch.float64, device=worker.device)
    whole[begin:end] = ranks(slice(begin, end))
    if worker.world_size > 1:
        dist.all_reduce(whole)
    return whole.cpu()


def rank_figures(ranks: Tensor) -> dict[str, Any]:
    """Recall and MRR of (S,) ranks, None for no ranks; "searches" is their number."""
    known = len(ranks) > 0
    recall = {f"recall@{k}": recall_at(ranks, k) if known else None for k in (1, 10, 100)}
    mrr = mean_reciprocal_rank(ranks) if known else None
    return recall | {"mrr": mrr, "searches": len(ranks)}
