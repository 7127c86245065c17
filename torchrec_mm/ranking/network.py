"""The dense part of the ranker: the parts of its method, an MLP over what they join, bias terms.

Shape letters: R requests, I impressions, W width of the MLP's input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.nn.shared_linear import Summed, shared_linear
from torchrec_mm.ranking.effects import UserEffects
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.parts import PARTS, Columns, companion_widths
from torchrec_mm.ranking.scene import Scene
from torchrec_mm.ranking.sequences import PARTS_OF_SEQUENCES
from torchrec_mm.ranking.spec import RankerSpec


class RankingNetwork(nn.Module):
    """Embeddings in, click logits out.

    The first column of each embedding of user, context and candidate is its bias: it goes to the
    logit directly, as a factorisation machine's first-order term does, so that an item's click
    rate is learned in few steps and does not have to pass through the MLP. Whatever belongs to the
    request and not to the candidate is multiplied by the MLP's first layer once a request.

    Source: DIN (Zhou et al., KDD 2018) with the methods of Sheng et al., CIKM 2024,
    arXiv:2407.19467; muse is arXiv:2512.07216. Ours: the bias columns, and no padding.
    """

    first_order_of_requests: Tensor
    first_order: Tensor

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
        if spec.sequences:
            self.parts += PARTS_OF_SEQUENCES[spec.method]
        self.blocks = [block for part in self.parts for block in part.build(self, spec)]
        width = sum(block.width for block in self.blocks)
        if spec.method == "muse":  # its checkpoints hold the two kinds of columns apart
            request_width = sum(block.width for block in self.blocks if block.of_request)
            self.request_layer = nn.Linear(request_width, spec.hidden[0], bias=False)
            width -= request_width
        self.mlp = MLP(width, spec.hidden, companion_widths(spec))
        # The first logit is the click rate's: steps are not spent on unlearning noise.
        nn.init.zeros_(self.mlp.logit.weight)
        self.base_logit = nn.Parameter(torch.logit(torch.tensor(spec.base_rate)))
        self.effects = UserEffects(spec.vector_width, spec.effects) if spec.effects else None
        of_requests, others = self._apart([b.first_order(spec.embedding_dim) for b in self.blocks])
        self.register_buffer("first_order_of_requests", torch.cat(of_requests)[None], False)
        self.register_buffer("first_order", torch.cat(others)[None], False)

    def forward(
        self, batch: RequestBatch, *embeddings: KeyedTensor, effects: KeyedTensor | None = None
    ) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs; embeddings as the collections of tables return them.

        ``effects``: each request's user's, None to do without.
        """
        scene = Scene.of(batch, self.spec, embeddings, self.behaviour_projection)
        joined = [part.join(self, scene) for part in self.parts]
        blocks = [block for part in joined for block in part.blocks]
        first, logit = self._first_layer(scene, *self._apart(blocks))
        companion = next((part.companion for part in joined if part.companion), None)
        score, _ = self.mlp.rest(first, companion)
        logits = [part.logit for part in joined if part.logit is not None]
        if effects is not None and self.effects is not None:
            logits.append(self.effects.logit(batch, effects))
        return click_loss(batch, sum(logits, start=score + logit))

    def _apart(self, blocks: Sequence[Columns]) -> tuple[list[Tensor], list[Tensor]]:
        """What belongs to the request, and to the impression; but for muse, the former is first."""
        apart: tuple[list[Tensor], list[Tensor]] = ([], [])
        for values, block in zip(blocks, self.blocks, strict=True):
            apart[not block.of_request].extend([values] if isinstance(values, Tensor) else values)
        return apart

    def _first_layer(
        self, scene: Scene, of_requests: list[Tensor], others: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(I, hidden) of the MLP's first layer, and (I,) first-order terms with the base rate's."""
        first = self.mlp.first
        widths = [self.first_order_of_requests.shape[1], self.first_order.shape[1]]
        if self.spec.method == "muse":
            weights = self.request_layer.weight, first.weight
        else:
            weights = first.weight.split(widths, dim=1)
        summed = Summed(self.first_order_of_requests, self.first_order)
        own = torch.cat(others, dim=1)
        hidden, logit = shared_linear(scene.shared(of_requests), own, weights, first.bias, summed)
        return hidden, logit + self.base_logit
