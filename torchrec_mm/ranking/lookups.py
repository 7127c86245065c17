"""What a batch's tables returned, handed out to requests, item slots and candidates.

Shape letters: R requests, S item slots, N places, E width of a table, W of all features' tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.batches import ITEM_ID, RequestBatch
from torchrec_mm.kernels.gather_columns import gather_columns
from torchrec_mm.ranking.spec import RankerSpec


@dataclass(frozen=True)
class Lookups:
    """Each distinct row that a batch needs, once.

    item_ids: (n, E) embeddings of distinct item ids. features: (m, W) of all other tables, beside
    each other in the order that their sharding gives. starts: where each begins in ``features``.
    """

    batch: RequestBatch
    spec: RankerSpec
    item_ids: Tensor
    features: Tensor
    starts: dict[str, int]

    @classmethod
    def of(
        cls, batch: RequestBatch, spec: RankerSpec, item_ids: KeyedTensor, features: KeyedTensor
    ) -> "Lookups":
        """Out of what the two EmbeddingBagCollections return."""
        starts = dict(zip(features.keys(), features.offset_per_key(), strict=False))
        return cls(batch, spec, item_ids[ITEM_ID], features.values(), starts)

    def requests(self) -> Tensor:
        """(R, F * E) embeddings of user and context."""
        columns = [(0, self.starts[name]) for name in self.spec.tables.request]
        rows = self.batch.rows
        index = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
        index = index.expand(len(columns), -1)
        return gather_columns((self.features,), columns, index, self.spec.embedding_dim)

    def items(self, tables: Sequence[str], slots: Tensor | None = None) -> Tensor:
        """(N, F * E) embeddings in some of the item tables, in the spec's order.

        ``slots``: (N,) int, whose; None: of all S slots.
        """
        order = list(self.spec.tables.item)
        chosen = [place for place, name in enumerate(order) if name in tables]
        columns = [
            (0, 0) if order[place] == ITEM_ID else (1, self.starts[order[place]])
            for place in chosen
        ]
        index = self.batch.item_index if slots is None else self.batch.item_index[:, slots]
        if len(chosen) < len(order):
            index = index[chosen]
        sources = (self.item_ids, self.features)
        return gather_columns(sources, columns, index, self.spec.embedding_dim)

    def attribute(self, name: str) -> Tensor:
        """(m, E) embeddings of a behaviour attribute, for ``behaviour_attribute_index``."""
        start = self.starts[name]
        return self.features[:, start : start + self.spec.embedding_dim]
