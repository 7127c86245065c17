"""One contrast: queries of one space against keys of one space.

Shape letters: B pairs of this rank, M pairs of all ranks, H hard-negative slots, D vector width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchrec_mm.losses.false_negatives import MISSING
from torchrec_mm.losses.info_nce import Negatives, info_nce
from torchrec_mm.losses.triplet import triplet_loss
from torchrec_mm.pretraining.scl.memory_bank import MemoryBank

MIN_TEMPERATURE, INITIAL_TEMPERATURE, MAX_TEMPERATURE = 0.01, 0.07, 0.5


@dataclass(frozen=True)
class Contrast:
    """Queries of one space ("image", "text" or "fused") that should find keys of one space."""

    query_space: str
    key_space: str

    @property
    def name(self) -> str:
        """The space, or "text_to_image" between two."""
        if self.query_space == self.key_space:
            return self.key_space
        return f"{self.query_space}_to_{self.key_space}"


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The loss of a contrast: InfoNCE + triplet_weight * triplet.

    momentum: of the momentum encoder, in [0, 1). bank_slots: keys the memory bank holds, 0 for no
    bank. in_batch: whether the keys of the batch's other queries are negatives. triplet_weight: 0
    for InfoNCE alone; hard negatives are not encoded then. margin: as a cosine distance.
    """

    momentum: float
    bank_slots: int
    in_batch: bool
    triplet_weight: float
    margin: float


class ContrastLoss(nn.Module):
    """Memory bank, temperature and losses of one contrast.

    A query's negatives are the keys of the global batch and of the bank, without those of the
    same content as its positive or of the same query.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "SCL". Ours: the masks, the bounds of the
    temperature.
    """

    def __init__(self, settings: LossSettings, width: int) -> None:
        """Start with an empty bank for keys of ``width``."""
        super().__init__()
        self.settings = settings
        self.bank = MemoryBank(settings.bank_slots, width)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        ids: Tensor,
        hard: tuple[Tensor, Tensor] | None,
        gathered: Negatives,
    ) -> tuple[Tensor, Tensor]:
        """Loss of this rank's valid pairs, those with query and key; then keys enter the bank.

        Args:
            query: (B, D) float32, receives the gradient. key: (B, D) float32.
            ids: (B, 2) int64, of the key's content and of the query's, -1 where missing.
            hard: (B, H, D) float32 and their contents' ids, (B, H) int64, -1 in empty slots; None
                without a triplet loss. A slot with the content of the key is passed over.
            gathered: keys of the M pairs of all ranks, their ids, and which keys are there.

        Returns:
            loss: scalar; its mean over ranks is the mean over the valid pairs of all of them.
            figures: (3,) detached, sums over this rank's valid pairs of InfoNCE and of the triplet
                loss, and the number of them.
        """
        contrast = self._info_nce(query, key, ids, gathered)
        violation = self._triplet(query, key, ids, hard)
        self.bank.enqueue(gathered.keys, gathered.ids, gathered.valid)
        valid = (ids != MISSING).all(dim=1)
        sums = torch.stack([contrast, violation]).masked_fill(~valid, 0).sum(dim=1)
        everywhere = (gathered.ids != MISSING).all(dim=1).sum().clamp(min=1)
        ranks = len(gathered.ids) // len(ids)
        loss = (sums[0] + self.settings.triplet_weight * sums[1]) * ranks / everywhere
        return loss, torch.cat([sums.detach(), valid.sum()[None]])

    def _info_nce(self, query: Tensor, key: Tensor, ids: Tensor, gathered: Negatives) -> Tensor:
        bank = self.bank.contents()
        negatives = [gathered, bank] if self.settings.in_batch else [bank]
        return info_nce(query, key, ids, negatives, self.log_temperature.exp())

    def _triplet(
        self, query: Tensor, key: Tensor, ids: Tensor, hard: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if hard is None:
            return torch.zeros_like(query[:, 0])
        vectors, hard_ids = hard
        mask = (hard_ids != MISSING) & (hard_ids != ids[:, :1])
        return triplet_loss(query, key, vectors, mask, self.settings.margin)

    @torch.no_grad()
    def bound_temperature(self) -> None:
        """Clamp the temperature to [MIN_TEMPERATURE, MAX_TEMPERATURE]."""
        self.log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
