"""The network of the ranker's baseline: all of an impression's behaviours dense, none masked.

Lifelong behaviours as in "MUSE" (arXiv:2512.07216), written the straightforward way: ids become
table rows by binary search in every step, tables are nn.Embedding, the tier histogram is one-hot.

Shape letters: I impressions, L = 1000 behaviours, K = 50 kept ones, D vector width, E table width,
N = 22 tiers.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.benchmarks.ranking.baseline_rows import (
    ITEM_COLUMNS,
    PAST,
    USER_COLUMNS,
    VECTOR_KEYS_FILE,
    VECTORS_FILE,
)
from torchrec_mm.data.encode.taobao_mm_files import CATEGORY, ITEM, PAST_ITEMS

KEPT = 50
NUM_TIERS = 22


class SortedIds:
    """Ids to table rows: place among the sorted known ids plus one, 0 for any other."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.keys = torch.from_numpy(np.load(path, allow_pickle=False)).to(device)

    def rows(self, ids: Tensor) -> Tensor:
        place = torch.searchsorted(self.keys, ids).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == ids, place + 1, 0)


class Attention(nn.Module):
    """Softmax over dot products of projected target and behaviours, or of dots and cosines."""

    def __init__(self, width: int, with_cosine: bool) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.Parameter(torch.ones(3)) if with_cosine else None

    def forward(
        self, target_IE: Tensor, behaviours_IKE: Tensor, cosine_IK: Tensor | None = None
    ) -> Tensor:
        query, keys = F.silu(self.query(target_IE)), F.silu(self.key(behaviours_IKE))
        score = torch.bmm(keys, query[:, :, None]).squeeze(-1) / query.shape[-1] ** 0.5
        if self.mix is not None:
            score = self.mix[0] * score + (self.mix[1] + self.mix[2] * score) * cosine_IK
        weights = torch.softmax(score, dim=-1)
        return torch.bmm(weights[:, None], behaviours_IKE).squeeze(1)


class BaselineNetwork(nn.Module):
    """Batches of JoinedRows to (I,) logits."""

    def __init__(self, folder: Path, embedding_dim: int, device: torch.device) -> None:
        """``folder`` is what ``join_tables`` wrote. Weights are drawn on the CPU, then moved."""
        super().__init__()
        self.ids = {
            name: SortedIds(folder / f"{name}.npy", device)
            for name in (*USER_COLUMNS, *ITEM_COLUMNS)
        }
        self.vector_ids = SortedIds(folder / VECTOR_KEYS_FILE, device)
        vectors = torch.from_numpy(np.load(folder / VECTORS_FILE, allow_pickle=False)).to(device)
        self.vectors = F.pad(vectors, (0, 0, 1, 0))  # row 0: no vector
        tables = {
            name: nn.Embedding(len(ids.keys) + 1, embedding_dim, sparse=True)
            for name, ids in self.ids.items()
        }
        for table in tables.values():
            nn.init.normal_(table.weight, std=1e-3)
        self.tables = nn.ModuleDict(tables)
        self.tier_weight = nn.Parameter(torch.ones(2, NUM_TIERS))
        past = len(PAST) * embedding_dim
        self.recent, self.similar = Attention(past, False), Attention(past, True)
        width = len(self.ids) * embedding_dim + 4 * past + 2 * NUM_TIERS
        layers: list[nn.Module] = []
        for hidden in (256, 128, 64):
            layers += [nn.Linear(width, hidden), nn.PReLU(hidden)]
            width = hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))
        self.to(device)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        cosine_IL = self.cosine(batch[ITEM], batch[PAST_ITEMS])
        top_cosine, top = cosine_IL.topk(KEPT, dim=1)
        columns = {name: self.embed(name, batch[name]) for name in self.ids}
        target = torch.cat([columns[ITEM], columns[CATEGORY]], dim=-1)
        similar = self.past({name: batch[past].gather(1, top) for name, past in PAST.items()})
        recent = self.past(
            {name: batch[past][:, -KEPT:].contiguous() for name, past in PAST.items()}
        )
        tiers = torch.stack([tier_counts(top_cosine), tier_counts(cosine_IL[:, -KEPT:])], dim=1)
        features = [
            *columns.values(),
            self.recent(target, recent),
            self.similar(target, similar, top_cosine),
            recent.mean(dim=1),
            similar.mean(dim=1),
            (torch.log1p(tiers) * self.tier_weight).flatten(1),
        ]
        return self.mlp(torch.cat(features, dim=-1)).squeeze(-1)

    def embed(self, column: str, ids: Tensor) -> Tensor:
        """(...) int64 ids to (..., E)."""
        return self.tables[column](self.ids[column].rows(ids))

    def past(self, ids: dict[str, Tensor]) -> Tensor:
        """(I, K) items and categories to (I, K, 2 E)."""
        return torch.cat([self.embed(name, of_column) for name, of_column in ids.items()], dim=-1)

    @torch.no_grad()
    def cosine(self, targets: Tensor, behaviours: Tensor) -> Tensor:
        """(I,) and (I, L) ids to (I, L); 0 where one has no vector."""
        target_ID, behaviour_ILD = (
            F.normalize(self.vectors[self.vector_ids.rows(ids)].float(), dim=-1)
            for ids in (targets, behaviours)
        )
        return torch.bmm(behaviour_ILD, target_ID[:, :, None]).squeeze(-1)


def tier_counts(cosine: Tensor) -> Tensor:
    """(I, K) in [-1, 1] to (I, N) float: how many in each tenth."""
    tier = (cosine * 10).ceil().long() + 10
    return F.one_hot(tier.clamp(0, NUM_TIERS - 1), NUM_TIERS).float().sum(dim=1)
