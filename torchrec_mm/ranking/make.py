"""MAKE on batches of requests: its features, and its pre-training as a model of its own.

Shape letters: I impressions, T behaviours, S item slots, M width of the projection.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.kernels.target_attention import RequestLists, target_attention
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss


@dataclass(frozen=True, kw_only=True)
class MakeSpec:
    """MAKE's shape, as a run writes it down: the arguments of ``Make``."""

    vector_width: int
    width: int
    hidden: tuple[int, ...]
    dropout: float

    def build(self) -> Make:
        """MAKE of this shape, its weights drawn."""
        return Make(**asdict(self))


def attended_vectors(
    make: Make,
    table: Tensor,
    candidates: Tensor,
    behaviours: Tensor,
    lists: RequestLists,
    cosine: Tensor,
) -> tuple[Tensor, Tensor]:
    """What ``make.judge`` goes by, from vectors that are projected already.

    Args:
        table: (S, M) float. candidates: (I,) int, row of each impression's item.
        behaviours: (T,) int32, row of each behaviour that has a vector; no others.
        lists: whose they are. cosine: of each pair.

    Returns:
        (I, M) targets; (I, M + 1), their interest and mean cosine.
    """
    targets = F.embedding(candidates, table)
    interest, mean_cosine = target_attention(
        make.attention, targets, table, behaviours, lists, cosine
    )
    assert mean_cosine is not None  # MAKE's attention has side information
    return targets, torch.cat([interest, mean_cosine[:, None]], dim=-1)


class MakeRanker(nn.Module):
    """MAKE as a click model of its own, for its pre-training on click labels."""

    def __init__(self, spec: MakeSpec) -> None:
        super().__init__()
        self.make = spec.build()

    def forward(self, batch: RequestBatch) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs of one batch; an item is projected once, however often it occurs."""
        vectors, known, search = batch.vectors, batch.vector_mask, batch.search
        # The collator of this model has them.
        assert vectors is not None and known is not None
        assert search is not None and search.cosine is not None
        targets, pooled = attended_vectors(
            self.make,
            self.make.project(unit_vectors(vectors)),
            batch.candidates,
            batch.behaviours,
            batch.lists,
            search.cosine,
        )
        features = self.make.judge(targets, pooled, known[batch.candidates])
        return click_loss(batch, features.logit)


def unit_vectors(vectors: Tensor) -> Tensor:
    """(n, D) int8 or float32 to float32 of length 1; zeros stay. Their scale does not matter."""
    return F.normalize(vectors.float(), dim=-1)


def make_spec_from_json(value: dict) -> MakeSpec:
    """The spec that ``dataclasses.asdict`` and JSON made ``value`` of."""
    return MakeSpec(**{**value, "hidden": tuple(value["hidden"])})
