"""The dense part of the ranker: the parts of its method, an MLP over what they join, bias terms.

Shape letters: R requests, I impressions, W width of the MLP's input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.parts import PARTS, Block
from torchrec_mm.ranking.scene import Scene
from torchrec_mm.ranking.spec import RankerSpec


class RankingNetwork(nn.Module):
    """Embeddings in, click logits out.

    The first column of each embedding of user, context and candidate is its bias: it goes to the
    logit directly, as a factorisation machine's first-order term does, so that an item's click
    rate is learned in few steps and does not have to pass through the MLP. Whatever belongs to the
    request and not to the candidate enters the MLP's first layer once a request.

    Source: DIN (Zhou et al., KDD 2018) with the methods of Sheng et al., CIKM 2024,
    arXiv:2407.19467; muse is arXiv:2512.07216. Ours: the bias columns, and no padding.
    """

    of_request: Tensor
    of_impression: Tensor

    def __init__(self, spec: RankerSpec) -> None:
        """MAKE's weights are frozen, and still to be loaded when this returns."""
        super().__init__()
        self.spec = spec
        # Its features come with the batch; the weights are here to be in the checkpoint.
        self.make = spec.make.build().requires_grad_(False).eval() if spec.make else None
        attended_width = spec.embedding_dim * len(spec.attended_tables)
        behaviour_width = attended_width + spec.embedding_dim * len(spec.tables.behaviour)
        self.behaviour_projection = (
            nn.Linear(behaviour_width, attended_width) if spec.tables.behaviour else nn.Identity()
        )
        self.parts = PARTS[spec.method]
        self.blocks = [block for part in self.parts for block in part.build(self, spec)]
        of_request, of_impression = columns(self.blocks)
        width = sum(block.width for block in self.blocks)
        if spec.method == "muse":  # its checkpoints hold the two kinds of columns apart
            self.request_layer = nn.Linear(len(of_request), spec.hidden[0], bias=False)
            width = len(of_impression)
        self.mlp = MLP(width, spec.hidden, spec.make.hidden if spec.make else ())
        # The first logit is the click rate's: steps are not spent on unlearning noise.
        nn.init.zeros_(self.mlp.logit.weight)
        self.base_logit = nn.Parameter(torch.logit(torch.tensor(spec.base_rate)))
        self.register_buffer("of_request", of_request, persistent=False)
        self.register_buffer("of_impression", of_impression, persistent=False)

    def forward(
        self, batch: RequestBatch, *embeddings: KeyedTensor
    ) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs; embeddings as the collections of tables return them."""
        scene = Scene.of(batch, self.spec, embeddings, self.behaviour_projection)
        logit = self.base_logit + self._first_order(scene)
        joined = [part.join(self, scene) for part in self.parts]
        blocks = [block for part in joined for block in part.blocks]
        is_of_request = [block.of_request for block in self.blocks]
        per_request = [b for b, of_request in zip(blocks, is_of_request, strict=True) if of_request]
        others = [b for b, of_request in zip(blocks, is_of_request, strict=True) if not of_request]
        companion = next((part.companion for part in joined if part.companion), None)
        for part in joined:
            if part.logit is not None:
                logit = logit + part.logit
        of_requests, of_others = self._first_layer()
        score, _ = self.mlp(
            torch.cat(others, dim=1),
            companion,
            addend=scene.at_impressions(F.linear(torch.cat(per_request, dim=1), of_requests)),
            first_weight=of_others,
        )
        return click_loss(batch, score + logit)

    def _first_order(self, scene: Scene) -> Tensor:
        """(I,) sum of the bias columns of the tables, not of what a part adds to an item."""
        every = self.spec.embedding_dim
        of_requests = scene.requests[:, ::every].sum(1, keepdim=True)
        return scene.at_impressions(of_requests)[:, 0] + scene.targets[:, ::every].sum(1)

    def _first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights of the columns that are a request's, and of those that are an impression's."""
        first = self.mlp.layers[0]
        assert isinstance(first, nn.Linear)  # as all of them are
        weight = first.weight
        if self.spec.method == "muse":
            return self.request_layer.weight, weight
        return weight.index_select(1, self.of_request), weight.index_select(1, self.of_impression)


def columns(blocks: list[Block]) -> tuple[Tensor, Tensor]:
    """(w,) and (W - w,) int64: which columns of all blocks are a request's, and which are not."""
    of_request = torch.cat([torch.full((width,), own) for width, own in blocks])
    return of_request.nonzero().flatten(), (~of_request).nonzero().flatten()
