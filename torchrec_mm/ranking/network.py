"""The dense part of the ranker: DIN on ID embeddings, and how item vectors join it.

Shape letters: R requests, C candidates, L behaviours, S item slots, E item width (all of an item's
tables together), D item-vector width, N tiers.
"""

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.nn.simtier import SimTier
from torchrec_mm.nn.target_attention import TargetAttention
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.make import make_features
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.spec import RankerSpec
from torchrec_mm.ranking.vector_view import VectorView


class RankingNetwork(nn.Module):
    """Embeddings in, click logits out: target attention, MLP, first-order terms.

    The first column of each embedding of user, context and candidate is its bias: it goes to the
    logit directly, as a factorisation machine's first-order term does, so that an item's click
    rate is learned in few steps and does not have to pass through the MLP.

    Source: DIN (Zhou et al., KDD 2018) with the methods of Sheng et al., CIKM 2024,
    arXiv:2407.19467. Ours: the bias columns, target * interest, and the length of the history,
    which every method sees so that a histogram earns nothing by merely counting behaviours.
    """

    def __init__(self, spec: RankerSpec) -> None:
        """MAKE's weights are frozen, and still to be loaded when this returns."""
        super().__init__()
        self.spec = spec
        self.make = spec.make.build().requires_grad_(False).eval() if spec.make else None
        item_width = spec.embedding_dim * len(spec.tables.item)
        behaviour_width = item_width + spec.embedding_dim * len(spec.tables.behaviour)
        self.behaviour_projection = (
            nn.Linear(behaviour_width, item_width) if spec.tables.behaviour else nn.Identity()
        )
        if spec.has("vector"):
            self.vector_projection = nn.Linear(spec.vector_width, 2 * spec.embedding_dim)
            item_width += 2 * spec.embedding_dim
        self.attention = TargetAttention(item_width, side_information=spec.has("simscore"))
        width = spec.embedding_dim * len(spec.tables.request) + 3 * item_width + 1
        if spec.has("simscore"):
            width += 1
        if spec.has("simtier"):
            self.tiers = SimTier(spec.num_tiers)
            self.tier_weight = nn.Parameter(torch.ones(spec.num_tiers))
            width += spec.num_tiers
        if spec.make:
            width += spec.make.width
        self.mlp = MLP(width, spec.hidden, spec.make.hidden if spec.make else ())
        # The first logit is the click rate's: steps are not spent on unlearning noise.
        nn.init.zeros_(self.mlp.logit.weight)
        self.base_logit = nn.Parameter(torch.logit(torch.tensor(spec.base_rate)))

    def train(self, mode: bool = True) -> "RankingNetwork":
        """Switch modes; MAKE stays in evaluation mode, as it is frozen."""
        super().train(mode)
        if self.make is not None:
            self.make.eval()
        return self

    def forward(
        self, batch: RequestBatch, *embeddings: KeyedTensor
    ) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs; embeddings as the collections of tables return them."""
        lookups = Lookups.of(batch, self.spec, embeddings)
        request_RF = lookups.requests()
        items_SE = lookups.items(tuple(self.spec.tables.item))
        targets = items_SE[batch.candidate_index]
        behaviours = self._behaviours(batch, items_SE, lookups)
        view = VectorView.of(batch) if self.spec.vector_width else None
        bias = self._first_order(request_RF, targets)
        if view is not None and self.spec.has("vector"):
            projected = self.vector_projection(view.slots * self.spec.vector_width**0.5)
            projected = projected * view.known[:, None]
            targets = torch.cat([targets, view.at_targets(projected)], dim=-1)
            behaviours = torch.cat([behaviours, view.at_behaviours(projected)], dim=-1)
        interest, extras = self._interest(batch, targets, behaviours, view)
        if view is not None and self.spec.has("simtier"):
            counts = self.tiers(view.cosine(), view.pair_mask())
            # Counts grow with the history, their logarithms stay in the range of the other inputs.
            extras.append(torch.log1p(counts) * self.tier_weight)
        companion = None
        if view is not None and self.make is not None:
            made = make_features(self.make, view)
            extras.append(made.interest)
            companion = made.hidden
            bias = bias + made.logit
        request = request_RF[:, None].expand(-1, targets.shape[1], -1)
        logits, _ = self.mlp(
            torch.cat([request, targets, interest, targets * interest, *extras], dim=-1), companion
        )
        return click_loss(batch, logits + bias + self.base_logit)

    def _behaviours(self, batch: RequestBatch, items_SE: Tensor, lookups: Lookups) -> Tensor:
        """(R, L, E) embeddings of the behaviours, their own attributes mixed in."""
        parts = [items_SE[batch.behaviour_index]]
        for name, index_RL in zip(
            self.spec.tables.behaviour, batch.behaviour_attribute_index, strict=True
        ):
            parts.append(lookups.attribute(name)[index_RL])
        return self.behaviour_projection(torch.cat(parts, dim=-1))

    def _first_order(self, request_RF: Tensor, targets_RCE: Tensor) -> Tensor:
        """(R, C) sum of the bias columns."""
        every = self.spec.embedding_dim
        return request_RF[:, ::every].sum(-1, keepdim=True) + targets_RCE[..., ::every].sum(-1)

    def _interest(
        self, batch: RequestBatch, targets: Tensor, behaviours: Tensor, view: VectorView | None
    ) -> tuple[Tensor, list[Tensor]]:
        """(R, C, E) interest, and further inputs of the MLP: history length, mean cosine."""
        length = torch.log1p(batch.behaviour_mask.sum(-1, dtype=torch.float32))
        extras = [length[:, None, None].expand(-1, targets.shape[1], -1)]
        if view is None or not self.spec.has("simscore"):
            return self.attention(targets, behaviours, batch.behaviour_mask), extras
        similar = (view.cosine(), view.pair_mask())
        pooled = self.attention(targets, behaviours, batch.behaviour_mask, *similar)
        extras.append(pooled[..., -1:])
        return pooled[..., :-1], extras
