"""MAKE on batches of requests: its features, and its pre-training as a model of its own.

Shape letters: I impressions, T behaviours, S item slots, M width of the projection.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

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
    sequences: events of the further behaviour sequences that they look at.
    """

    vector_width: int
    width: int
    hidden: tuple[int, ...]
    dropout: float
    folds: int = 1
    sequences: tuple[str, ...] = ()

    def build(self) -> Make | nn.ModuleList:
        """MAKE of this shape, its weights drawn; of several folds, K with the same weights."""
        make = Make(
            vector_width=self.vector_width,
            width=self.width,
            hidden=self.hidden,
            dropout=self.dropout,
            sequences=len(self.sequences),
        )
        if self.folds == 1:
            return make  # under the name that it has always had in checkpoints
        return nn.ModuleList(copy.deepcopy(make) for _ in range(self.folds))


def makes_in(built: nn.Module) -> tuple[Make, ...]:
    """One MAKE a fold, of what ``MakeSpec.build`` gave."""
    makes = built if isinstance(built, nn.ModuleList) else [built]
    return tuple(make for make in makes if isinstance(make, Make))


class Attended(NamedTuple):
    """One behaviour sequence: rows of the behaviours that have a vector, and no others.

    behaviours: (T,) int32. lists: whose they are. cosine: (P,) float32 of each pair.
    """

    behaviours: Tensor
    lists: RequestLists
    cosine: Tensor


def attended_vectors(
    make: Make, table: Tensor, candidates: Tensor, sequences: Sequence[Attended]
) -> tuple[Tensor, Tensor]:
    """What ``make.judge`` goes by, from vectors that are projected already.

    Args:
        table: (S, M) float. candidates: (I,) int, row of each impression's item.
        sequences: the behaviours, and the further ones that MAKE looks at; 1 + Q.

    Returns:
        (I, M) targets; (I, M + 1 + Q), their interest, and the mean cosine of each sequence.
    """
    targets = F.embedding(candidates, table)
    interests, cosines = [], []
    for attention, (behaviours, lists, cosine) in zip(make.attentions, sequences, strict=True):
        interest, mean_cosine = target_attention(
            attention, targets, table, behaviours, lists, cosine
        )
        assert mean_cosine is not None  # MAKE's attention has side information
        interests.append(interest)
        cosines.append(mean_cosine[:, None])
    return targets, torch.cat([interests[0], *cosines], dim=-1)


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
    sequences = [Attended(batch.behaviours, batch.lists, search.cosine)]
    for further in batch.sequences:
        assert further.cosine is not None
        sequences.append(Attended(further.slots, batch.lists_of(further), further.cosine))
    targets, pooled = attended_vectors(make, make.project(unit), batch.candidates, sequences)
    return make.judge(targets, pooled, known[batch.candidates]).logit


def unit_vectors(vectors: Tensor) -> Tensor:
    """(n, D) int8 or float32 to float32 of length 1; zeros stay. Their scale does not matter."""
    return F.normalize(vectors.float(), dim=-1)


def make_spec_to_json(spec: MakeSpec) -> dict[str, Any]:
    """What ``make_spec_from_json`` reads.

    One fold, and no sequences, are left out, as in runs of releases before them.
    """
    described = asdict(spec)
    plain = {"folds": 1, "sequences": ()}
    return {n: v for n, v in described.items() if n not in plain or v != plain[n]}


def make_spec_from_json(value: dict) -> MakeSpec:
    """The spec that ``make_spec_to_json`` and JSON made ``value`` of."""
    lists = {"hidden": tuple(value["hidden"]), "sequences": tuple(value.get("sequences", ()))}
    return MakeSpec(**{**value, **lists})
