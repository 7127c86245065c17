"""MAKE: a click model that sees nothing but item vectors, trained for several epochs apart.

Shape letters: R requests, C candidates, L behaviours, D item-vector width, M model width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.nn.target_attention import TargetAttention
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.vector_view import VectorView


@dataclass(frozen=True, kw_only=True)
class MakeSpec:
    """MAKE's shape: D, M, the widths of the MLP's hidden layers, and the dropout in training."""

    vector_width: int
    width: int
    hidden: tuple[int, ...]
    dropout: float


class MakeFeatures(NamedTuple):
    """What the ID model takes over from MAKE; zeros where the candidate has no vector.

    interest: (R, C, M) v_MAKE. hidden: each hidden layer of the MLP, (R, C, hidden[i]).
    logit: (R, C).
    """

    interest: Tensor
    hidden: list[Tensor]
    logit: Tensor


class Make(nn.Module):
    """Multimodal Knowledge Extractor: DIN over item vectors instead of ID embeddings.

    A projection of the vectors, target attention over the behaviours that have one, a small MLP.
    It has no ID to memorise, so it keeps improving for several epochs, where an ID model
    overfits from the second.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "MAKE", step (a). Ours: the cosine of each
    pair joins the activation unit, and the projected vectors are dropped out. The ID model meets
    MAKE on the very clicks it was trained on, so what MAKE learned by heart would be believed.
    """

    def __init__(self, spec: MakeSpec) -> None:
        super().__init__()
        self.scale = spec.vector_width**0.5
        self.projection = nn.Linear(spec.vector_width, spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        self.attention = TargetAttention(spec.width, side_information=True)
        self.mlp = MLP(3 * spec.width + 1, spec.hidden)

    def forward(self, view: VectorView) -> MakeFeatures:
        """Score every candidate from vectors alone."""
        # A unit vector has entries near D ** -0.5; the network likes them near 1.
        projected = self.dropout(self.projection(view.slots * self.scale))
        targets, behaviours = view.at_targets(projected), view.at_behaviours(projected)
        pooled = self.attention(
            targets, behaviours, view.behaviour_mask, view.cosine(), view.pair_mask()
        )
        interest = pooled[..., :-1]
        logit, hidden = self.mlp(torch.cat([targets, pooled, targets * interest], dim=-1))
        unknown = ~view.target_mask
        return MakeFeatures(
            interest.masked_fill(unknown[..., None], 0),
            [layer.masked_fill(unknown[..., None], 0) for layer in hidden],
            logit.masked_fill(unknown, 0),
        )


class MakeRanker(nn.Module):
    """MAKE as a click model of its own, for its pre-training on click labels."""

    def __init__(self, spec: MakeSpec) -> None:
        super().__init__()
        self.make = Make(spec)

    def forward(self, batch: RequestBatch) -> tuple[Tensor, RankingOutputs]:
        return click_loss(batch, self.make(VectorView.of(batch)).logit)


def make_spec_from_json(value: dict) -> MakeSpec:
    """The spec that ``dataclasses.asdict`` and JSON made ``value`` of."""
    return MakeSpec(**{**value, "hidden": tuple(value["hidden"])})
