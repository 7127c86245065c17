"""One tower's training step: queries against keys (SCL).

Shape letters: B searches on this rank, H hard-negative slots, D vector width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchrec_mm.losses.info_nce import info_nce
from torchrec_mm.losses.triplet import triplet
from torchrec_mm.pretraining.head import VECTOR_WIDTH
from torchrec_mm.pretraining.memory_bank import MemoryBank
from torchrec_mm.pretraining.momentum import momentum_copy, update_momentum

MIN_TEMPERATURE, INITIAL_TEMPERATURE, MAX_TEMPERATURE = 0.01, 0.07, 0.5

Inputs = Tensor | list[str]


@dataclass(frozen=True)
class SearchBatch:
    """Searches of one modality, as a tower reads them.

    query: B inputs of the encoder. positive: B inputs, what was bought. hard: one input for each
    True of ``hard_mask`` in row order, what was only clicked; hard_mask: (B, H) bool.
    positive_ids, query_ids: (B,) int64, equal where the purchased item or the query is the same.
    """

    query: Inputs
    positive: Inputs
    hard: Inputs
    hard_mask: Tensor
    positive_ids: Tensor
    query_ids: Tensor


@dataclass(frozen=True)
class LossSettings:
    """The loss of a tower: InfoNCE + triplet_weight * triplet.

    momentum: of the momentum encoder, in [0, 1). bank_slots: keys the memory bank holds, 0 for
    in-batch negatives only. margin: of the triplet loss, as a cosine distance.
    """

    momentum: float
    bank_slots: int
    triplet_weight: float
    margin: float


class Tower(nn.Module):
    """Semantic-aware contrastive learning of one encoder, as the training module.

    Keys come from the momentum encoder. A query's negatives are the keys of the global batch and
    of the memory bank, without those of the same purchased item or of the same query. The
    module knows no ranks: it is given the function that gathers keys from all of them.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "SCL". Ours: the masks, the gathering, the
    bounds of the temperature.
    """

    def __init__(
        self, encoder: nn.Module, settings: LossSettings, gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Start with an empty bank.

        Args:
            encoder: inputs to unit vectors (B, D).
            settings: of the loss.
            gather: (B, ...) of this rank to the (ranks * B, ...) of all, in rank order.
        """
        super().__init__()
        self.encoder = encoder
        self.momentum_encoder = momentum_copy(encoder)
        self.bank = MemoryBank(settings.bank_slots, VECTOR_WIDTH)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))
        self.settings = settings
        self.gather = gather

    def forward(self, batch: SearchBatch) -> tuple[Tensor, Tensor]:
        """Loss of one batch; its keys enter the memory bank.

        Returns:
            loss: scalar, mean over this rank's B searches.
            parts: (2,) detached, mean InfoNCE and mean triplet loss.
        """
        query = self.encoder(batch.query)
        positive, hard = self._keys(batch)
        keys, item_ids, query_ids = map(
            self.gather, (positive, batch.positive_ids, batch.query_ids)
        )
        bank_keys, bank_item_ids, bank_query_ids = self.bank.contents()
        negatives = torch.cat([keys, bank_keys])
        is_negative = differs(batch.positive_ids, torch.cat([item_ids, bank_item_ids]))
        is_negative &= differs(batch.query_ids, torch.cat([query_ids, bank_query_ids]))
        contrast = info_nce(query, positive, negatives, is_negative, self.log_temperature.exp())
        violation = triplet(query, positive, hard, batch.hard_mask, self.settings.margin)
        self.bank.enqueue(keys, item_ids, query_ids)
        info_nce_mean, triplet_mean = contrast.mean(), violation.mean()
        loss = info_nce_mean + self.settings.triplet_weight * triplet_mean
        return loss, torch.stack([info_nce_mean, triplet_mean]).detach()

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after each optimizer step: move the momentum encoder, bound temperature."""
        update_momentum(self.momentum_encoder, self.encoder, self.settings.momentum)
        self.log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))

    @torch.no_grad()
    def _keys(self, batch: SearchBatch) -> tuple[Tensor, Tensor]:
        """positive (B, D), and hard (B, H, D) with zeros in padding."""
        positive = self.momentum_encoder(batch.positive)
        hard = positive.new_zeros(*batch.hard_mask.shape, positive.shape[1])
        if len(batch.hard):
            hard[batch.hard_mask] = self.momentum_encoder(batch.hard)
        return positive, hard


def differs(own: Tensor, other: Tensor) -> Tensor:
    """(B,) and (M,) ids -> (B, M) bool, True where they are not the same."""
    return own[:, None] != other[None, :]
