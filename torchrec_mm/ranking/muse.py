"""MUSE: a ranker over lifelong behaviours, found by cosine, attended to exactly.

Shape letters: R requests, I impressions, S item slots, K kept behaviours, L recent behaviours,
B behaviour width (the tables that behaviours have), N tiers.
"""

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.kernels.gathered_attention import gathered_attention
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.spec import RankerSpec


class MuseNetwork(nn.Module):
    """Embeddings and search results in, click logits out.

    Two attentions with the target item: over the newest behaviours, scored by dot product, and
    over those that the general search kept, scored by SA-TA, which mixes in the cosine of the
    frozen vectors. SimTier counts all behaviours. Whatever belongs to the request and not to the
    candidate enters the first layer once a request.

    Source: MUSE, arXiv:2512.07216 (GSU, ESU, SA-TA). Ours: every behaviour's similarity is
    counted, padding is masked, bias columns as in ``RankingNetwork``.
    """

    def __init__(self, spec: RankerSpec) -> None:
        super().__init__()
        self.spec = spec
        behaviour_width = spec.embedding_dim * len(spec.behaviour_tables)
        item_width = spec.embedding_dim * len(spec.tables.item)
        request_width = spec.embedding_dim * len(spec.tables.request) + behaviour_width + 1
        self.recent_query = nn.Linear(behaviour_width, behaviour_width, bias=False)
        self.kept_query = nn.Linear(behaviour_width, behaviour_width, bias=False)
        self.mix = nn.Parameter(torch.ones(3))
        self.tier_weight = nn.Parameter(torch.ones(spec.num_tiers))
        self.request_layer = nn.Linear(request_width, spec.hidden[0], bias=False)
        self.mlp = MLP(item_width + 3 * behaviour_width + spec.num_tiers, spec.hidden)
        nn.init.zeros_(self.mlp.logit.weight)
        self.base_logit = nn.Parameter(torch.logit(torch.tensor(spec.base_rate)))

    def forward(
        self, batch: RequestBatch, *embeddings: KeyedTensor
    ) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs; embeddings as the collections of tables return them."""
        found, lookups = batch.search, Lookups.of(batch, self.spec, embeddings)
        assert found is not None  # the collator of this method searches
        slots_SB = lookups.items(self.spec.behaviour_tables)
        targets = batch.candidate_index.flatten()[found.position]
        item_I = lookups.items(tuple(self.spec.tables.item), targets)
        target_IB = lookups.items(self.spec.behaviour_tables, targets)
        recent, mean_recent_RB = gathered_attention(
            self.recent_query(target_IB),
            slots_SB,
            batch.behaviour_index.int(),
            batch.behaviour_mask.sum(-1, dtype=torch.int32),
            request=found.request,
        )
        kept, mean_kept = gathered_attention(
            self.kept_query(target_IB),
            slots_SB,
            found.kept_index,
            found.kept_length,
            cosine=found.kept_cosine,
            mix=self.mix,
        )
        request_RF = lookups.requests()
        length = torch.log1p(batch.behaviour_mask.sum(-1, keepdim=True).float())
        per_request = self.request_layer(torch.cat([request_RF, mean_recent_RB, length], dim=-1))
        tiers = torch.log1p(found.tiers) * self.tier_weight
        logit, _ = self.mlp(
            torch.cat([item_I, recent, kept, mean_kept, tiers], dim=-1),
            addend=per_request[found.request],
        )
        width = self.spec.embedding_dim
        bias = item_I[:, ::width].sum(-1) + request_RF[:, ::width].sum(-1)[found.request]
        logits_I = logit + bias + self.base_logit
        logits_RC = torch.zeros_like(batch.labels).flatten().index_put((found.position,), logits_I)
        return click_loss(batch, logits_RC.view_as(batch.labels))
