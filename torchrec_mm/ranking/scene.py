"""What a network looks at: the embeddings of a batch, handed out to impressions and behaviours.

Shape letters: R requests, I impressions, T behaviours, S item slots, E width of an item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.shared_linear import Shared
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.spec import RankerSpec


@dataclass
class Scene:
    """One batch.

    requests: (R, F) embeddings of user and context, in parts side by side.
    targets: (I, E) each impression's item; a part that adds to what an item is makes it wider, and
    the rows of behaviours with it.
    rows, index: row ``rows[index[t]]`` is behaviour t; (n, E) and (T,) int32.
    slots: (S, E) each item slot, which is all that further sequences know of a behaviour.
    """

    batch: RequestBatch
    lookups: Lookups
    requests: tuple[Tensor, ...]
    targets: Tensor
    rows: Tensor
    index: Tensor
    slots: Tensor

    @classmethod
    def of(
        cls,
        batch: RequestBatch,
        spec: RankerSpec,
        embeddings: tuple[KeyedTensor, ...],
        projection: nn.Module,
    ) -> "Scene":
        """Out of what the collections of tables return.

        ``projection``: of a behaviour, its own attributes beside its item, to the width of an item.
        """
        lookups = Lookups.of(batch, spec, embeddings)
        index, tables = batch.behaviours, tuple(spec.tables.item)
        if spec.attended_tables == tables:
            rows, targets = lookups.items(tables).tensor_split([lookups.slots.stop])
        else:
            rows = lookups.items(spec.attended_tables, lookups.slots)
            targets = lookups.items(tables, lookups.impressions)
        slots = rows
        if spec.tables.behaviour:
            attributes = [
                F.embedding(bag, lookups.attribute(name))
                for name, bag in zip(spec.tables.behaviour, batch.behaviour_attributes, strict=True)
            ]
            rows = projection(torch.cat([F.embedding(index, rows), *attributes], dim=1))
            index = torch.arange(index.shape[0], dtype=torch.int32, device=index.device)
        return cls(batch, lookups, lookups.of_requests(), targets, rows, index, slots)

    def at_impressions(self, per_request: Tensor) -> Tensor:
        """(R, W) to (I, W)."""
        return F.embedding(self.batch.request, per_request)

    def shared(self, of_requests: Sequence[Tensor]) -> Shared:
        """What all impressions of a request share."""
        batch = self.batch
        is_single = batch.most_candidates == 1 and batch.rows.shape == batch.candidates.shape
        return Shared(of_requests, batch.request, is_single)

    def num_behaviours(self) -> Tensor:
        """(R,) float32."""
        return self.batch.behaviour_offsets.diff().float()
