"""simtier+make in plain PyTorch: padded histories, nn.Embedding, one-hot tiers, a frozen MAKE.

Shape letters: I impressions, L behaviours, D item-vector width, N tiers.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.benchmarks.ranking.short_baseline import ShortBaseline
from torchrec_mm.benchmarks.ranking.short_baseline_network import PlainDIN, mlp
from torchrec_mm.benchmarks.ranking.short_data import VECTOR_WIDTH
from torchrec_mm.benchmarks.ranking.short_ours import MAKE_RUN
from torchrec_mm.benchmarks.ranking.short_rows import HISTORY, ROWS_FILE
from torchrec_mm.documents import read_json
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.spec import RankerSettings


class PlainMultimodal(PlainDIN):
    """Batches of JoinedRows to (I,) logits: PlainDIN, a histogram of cosines, and MAKE's features.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467. What MAKE says goes into the first layer
    alone. Vectors are random, as only the time is looked at; row 0 is padding.
    """

    vectors: Tensor

    def __init__(
        self,
        num_rows: Mapping[str, int],
        columns: Mapping[str, Tensor],
        settings: RankerSettings,
        make: Make,
    ) -> None:
        """``num_rows``, ``columns`` as of PlainDIN; ``settings``: ours; ``make``: to be frozen."""
        super().__init__(num_rows, columns, settings.embedding_dim, settings.hidden)
        vectors = F.normalize(torch.randn(num_rows[self.items[0]], VECTOR_WIDTH), dim=-1)
        vectors[0] = 0
        self.register_buffer("vectors", vectors)
        self.make, self.num_tiers = make.requires_grad_(False).eval(), settings.num_tiers
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        made = sum(each.out_features for each in (make.projection, *make.mlp.layers))
        self.mlp = mlp(first.in_features + self.num_tiers + made, settings.hidden)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        item = self.items[0]
        target_I1D = self.vectors[batch[item]][:, None]
        history_ILD, mask_IL = self.vectors[batch[HISTORY + item]], batch[HISTORY + item] != 0
        with torch.no_grad():
            tiers_IN = self.tiers(target_I1D, history_ILD, mask_IL)
            made = self.make(target_I1D, history_ILD, batch[item][:, None] != 0, mask_IL)
        extra = [tiers_IN.log1p(), made.interest[:, 0], *(each[:, 0] for each in made.hidden)]
        joined = torch.cat([*self.blocks(batch), *extra], dim=-1)
        return self.mlp(joined).squeeze(-1) + made.logit[:, 0]

    def tiers(self, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """(I, 1, D), (I, L, D) and (I, L) bool to (I, N): behaviours in each tier of cosine."""
        cosine = torch.bmm(history, target.mT).squeeze(-1)
        tier = ((cosine + 1) * (self.num_tiers / 2)).long().clamp(0, self.num_tiers - 1)
        return (F.one_hot(tier, self.num_tiers) * mask[..., None]).sum(dim=1).float()


class PlainMultimodalTraining(ShortBaseline):
    """The short benchmark's baseline with that network."""

    def network_of(self, joined: Path, columns: Mapping[str, Tensor]) -> PlainDIN:
        spec = read_json(joined.parent / MAKE_RUN / "model.json")["spec"]
        make = Make(vector_width=spec["vector_width"], width=spec["width"], hidden=spec["hidden"])
        num_rows = read_json(joined / ROWS_FILE)
        return PlainMultimodal(num_rows, columns, RankerSettings(), make)
