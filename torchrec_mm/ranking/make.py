"""MAKE on batches of requests: its features, and its pre-training as a model of its own.

Shape letters: I impressions, T behaviours, S item slots, M width of the projection.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.folds import without_fold
from torchrec_mm.kernels.target_attention import RequestLists, target_attention
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss


@dataclass(frozen=True, kw_only=True)
class MakeSpec:
    """MAKE's shape, as a run writes it down: the arguments of ``Make``, and how many of them.

    folds: K MAKEs, each of which learns from all requests but those of its fold; 1: from all.
    """

    vector_width: int
    width: int
    hidden: tuple[int, ...]
    dropout: float
    folds: int = 1

    def build(self) -> Make | nn.ModuleList:
        """MAKE of this shape, its weights drawn; of several folds, K with the same weights."""
        make = Make(
            vector_width=self.vector_width,
            width=self.width,
            hidden=self.hidden,
            dropout=self.dropout,
        )
        if self.folds == 1:
            return make  # under the name that it has always had in checkpoints
        return nn.ModuleList(copy.deepcopy(make) for _ in range(self.folds))


def makes_in(built: nn.Module) -> tuple[Make, ...]:
    """One MAKE a fold, of what ``MakeSpec.build`` gave."""
    makes = built if isinstance(built, nn.ModuleList) else [built]
    return tuple(make for make in makes if isinstance(make, Make))


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
    """MAKE as a click model of its own, for its pre-training on click labels.

    Of several folds, each learns from what a batch holds of the others; a batch without folds, to
    be scored, gets the mean of their logits.
    """

    def __init__(self, spec: MakeSpec) -> None:
        super().__init__()
        self.make = spec.build()

    def forward(self, batch: RequestBatch) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs of one batch; an item is projected once, however often it occurs."""
        assert batch.vectors is not None  # the collator of this model has them
        unit, makes = unit_vectors(batch.vectors), makes_in(self.make)
        if batch.folds is None:
            logits = [logits_of(make, unit, batch) for make in makes]
            return click_loss(batch, torch.stack(logits).mean(dim=0))
        loss, ends = unit.new_zeros(()), batch.folds.candidates
        told = torch.zeros_like(batch.labels)
        for fold, make in enumerate(makes):
            others = without_fold(batch, fold)
            logits_of_others = logits_of(make, unit, others)
            its_loss, _ = click_loss(others, logits_of_others)
            loss = loss + its_loss / (len(makes) - 1)
            told[: ends[fold]] += logits_of_others.detach()[: ends[fold]]
            told[ends[fold + 1] :] += logits_of_others.detach()[ends[fold] :]
        told /= len(makes) - 1  # of each impression, by those that have learned from it
        return loss, click_loss(batch, told)[1]._replace(loss=loss.detach())


def logits_of(make: Make, unit: Tensor, batch: RequestBatch) -> Tensor:
    """(I,) of one MAKE; ``unit``: (S, D) unit vectors of the batch's items."""
    known, search = batch.vector_mask, batch.search
    # The collator of ``MakeRanker`` has them.
    assert known is not None and search is not None and search.cosine is not None
    targets, pooled = attended_vectors(
        make, make.project(unit), batch.candidates, batch.behaviours, batch.lists, search.cosine
    )
    return make.judge(targets, pooled, known[batch.candidates]).logit


def unit_vectors(vectors: Tensor) -> Tensor:
    """(n, D) int8 or float32 to float32 of length 1; zeros stay. Their scale does not matter."""
    return F.normalize(vectors.float(), dim=-1)


def make_spec_to_json(spec: MakeSpec) -> dict[str, Any]:
    """What ``make_spec_from_json`` reads; one fold is left out, as in runs of earlier releases."""
    described = asdict(spec)
    return described if spec.folds > 1 else {n: v for n, v in described.items() if n != "folds"}


def make_spec_from_json(value: dict) -> MakeSpec:
    """The spec that ``make_spec_to_json`` and JSON made ``value`` of."""
    return MakeSpec(**{**value, "hidden": tuple(value["hidden"])})
