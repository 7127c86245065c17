"""The item vectors of a batch, as the ways to use them want them.

Shape letters: R requests, C candidates, L behaviours, S item slots, D item-vector width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.simtier import cosine_similarity


@dataclass(frozen=True)
class VectorView:
    """Unit item vectors of the batch's distinct items, and where they occur.

    Whatever is a function of one item's vector is computed once a slot and handed out to the
    slot's occurrences by ``at_targets`` and ``at_behaviours``.

    slots: (S, D) float32 unit vectors, zeros without a vector.
    known: (S,) bool, True where the item has one.
    target_mask: (R, C) bool, True where the candidate is real and has a vector.
    behaviour_mask: (R, L) bool, likewise.
    """

    slots: Tensor
    known: Tensor
    target_mask: Tensor
    behaviour_mask: Tensor
    candidate_index: Tensor
    behaviour_index: Tensor

    @classmethod
    def of(cls, batch: RequestBatch) -> "VectorView":
        """Normalise each distinct item's vector once."""
        vectors, known = batch.vectors, batch.vector_mask
        assert vectors is not None and known is not None  # the collator of a model that has them
        return cls(
            # The scale of int8 vectors does not matter after normalisation.
            torch.nn.functional.normalize(vectors.float(), dim=-1),
            known,
            known[batch.candidate_index] & batch.candidate_mask,
            known[batch.behaviour_index] & batch.behaviour_mask,
            batch.candidate_index,
            batch.behaviour_index,
        )

    def at_targets(self, per_slot: Tensor) -> Tensor:
        """(S, W) to (R, C, W)."""
        return per_slot[self.candidate_index]

    def at_behaviours(self, per_slot: Tensor) -> Tensor:
        """(S, W) to (R, L, W)."""
        return per_slot[self.behaviour_index]

    def cosine(self) -> Tensor:
        """(R, C, L) cosine of each candidate with each behaviour of its request."""
        return cosine_similarity(self.at_targets(self.slots), self.at_behaviours(self.slots))

    def pair_mask(self) -> Tensor:
        """(R, C, L) bool, True where both items are real and have a vector."""
        return self.target_mask[:, :, None] & self.behaviour_mask[:, None]
