"""The item vectors of a batch, as the ways to use them want them.

Shape letters: R requests, C candidates, L behaviours, S item slots, D item-vector width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchrec_mm.data.batches import RequestBatch
from torchrec_mm.nn.simtier import cosine_similarity


@dataclass(frozen=True)
class VectorView:
    """Unit item vectors of candidates and behaviours, and where they are known.

    targets: (R, C, D) float32, zeros without a vector. target_mask: (R, C) bool, True where the
    slot is real and has a vector. behaviours: (R, L, D) float32, behaviour_mask: (R, L) bool,
    likewise.
    """

    targets: Tensor
    target_mask: Tensor
    behaviours: Tensor
    behaviour_mask: Tensor

    @classmethod
    def of(cls, batch: RequestBatch) -> "VectorView":
        """Normalise each distinct item's vector once, then hand it out to its occurrences."""
        # The scale of int8 vectors does not matter after normalisation.
        unit = torch.nn.functional.normalize(batch.vectors.float(), dim=-1)
        known = batch.vector_mask
        return cls(
            unit[batch.candidate_index],
            known[batch.candidate_index] & batch.candidate_mask,
            unit[batch.behaviour_index],
            known[batch.behaviour_index] & batch.behaviour_mask,
        )

    def cosine(self) -> Tensor:
        """(R, C, L) cosine of each candidate with each behaviour of its request."""
        return cosine_similarity(self.targets, self.behaviours)

    def pair_mask(self) -> Tensor:
        """(R, C, L) bool, True where both items are real and have a vector."""
        return self.target_mask[:, :, None] & self.behaviour_mask[:, None]
