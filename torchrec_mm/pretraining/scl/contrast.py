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

# He et al., CVPR 2020, arXiv:1911.05722, keep 0.07. Left to itself the temperature falls for as
# long as the pairs in training can be told apart, and gradients become those of a few keys.
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


class ContrastLoss(nn.Module):
    """Memory bank, temperature and losses of one contrast.

    A query's negatives are the keys of the global batch and of the bank, without those of the
    same content as its positive, of the same query, or of what else is relevant to it. Keys and
    hard negatives come from the momentum encoder. InfoNCE + triplet_weight * triplet.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "SCL". Ours: the masks, the bounds of the
    temperature.

    >>> contrast = ContrastLoss(4, bank_slots=100)
    >>> query = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    >>> ids = torch.tensor([[7, 1], [8, 2], [7, 3]])
    >>> loss, figures = contrast(query, query.detach(), ids)
    >>> [loss.shape, int(figures[2]), len(contrast.bank.contents().keys)]
    [torch.Size([]), 3, 3]
    """

    def __init__(
        self,
        width: int,
        *,
        bank_slots: int,
        in_batch: bool = True,
        triplet_weight: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        """Start with an empty bank.

        Args:
            width: D. bank_slots: keys the memory bank holds, 0 for no bank.
            in_batch: whether the keys of the batch's other queries are negatives.
            triplet_weight: at least 0. margin: of the triplet loss, as a cosine distance.
        """
        super().__init__()
        self.in_batch, self.triplet_weight, self.margin = in_batch, triplet_weight, margin
        self.bank = MemoryBank(slots=bank_slots, width=width)
        # The logarithm is what learns: steps are then relative, and it cannot become negative.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        ids: Tensor,
        hard: tuple[Tensor, Tensor] | None = None,
        gathered: Negatives | None = None,
        relevant: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss of this rank's valid pairs, those with query and key; then keys enter the bank.

        Args:
            query: (B, D) float32 unit vectors, receives the gradient. key: (B, D), no gradient.
            ids: (B, 2) int64, of the key's content and of the query's, -1 where missing.
            hard: (B, H, D) float32 and their contents' ids, (B, H) int64, -1 in empty slots; None
                without a triplet loss. A slot with the content of the key is passed over.
            gathered: keys of the M pairs of all ranks, their ids, and which keys are there; None
                where this rank is alone.
            relevant: (R, 2) int64, pairs of this rank in [0, B), and the id of a content that is
                relevant to the query of each besides its key: no negative of it, hard or not.

        Returns:
            loss: scalar; its mean over ranks is the mean over the valid pairs of all of them.
            figures: (3,) detached, sums over this rank's valid pairs of InfoNCE and of the triplet
                loss, and the number of them.

        Raises:
            ValueError: ids are not of the keys, or the hard negatives' not of their slots.
        """
        if gathered is None:
            gathered = Negatives(key, ids, ids[:, 0] != MISSING)
        assert gathered.valid is not None  # of keys gathered it is always known
        contrast = self._info_nce(query, key, ids, gathered, relevant)
        violation = self._triplet(query, key, ids, hard, relevant)
        self.bank.enqueue(gathered.keys, gathered.ids, gathered.valid)
        valid = (ids != MISSING).all(dim=1)
        sums = torch.stack([contrast, violation]).masked_fill(~valid, 0).sum(dim=1)
        everywhere = (gathered.ids != MISSING).all(dim=1).sum().clamp(min=1)
        ranks = len(gathered.ids) // len(ids)
        # Times ranks: what averages gradients over them divides by their number.
        loss = (sums[0] + self.triplet_weight * sums[1]) * ranks / everywhere
        return loss, torch.cat([sums.detach(), valid.sum()[None]])

    def _info_nce(
        self,
        query: Tensor,
        key: Tensor,
        ids: Tensor,
        gathered: Negatives,
        relevant: Tensor | None,
    ) -> Tensor:
        bank = self.bank.contents()
        negatives = [gathered, bank] if self.in_batch else [bank]
        return info_nce(query, key, ids, negatives, self.log_temperature.exp(), relevant)

    def _triplet(
        self,
        query: Tensor,
        key: Tensor,
        ids: Tensor,
        hard: tuple[Tensor, Tensor] | None,
        relevant: Tensor | None,
    ) -> Tensor:
        if hard is None:
            return torch.zeros_like(query[:, 0])
        vectors, hard_ids = hard
        mask = (hard_ids != MISSING) & (hard_ids != ids[:, :1])
        if relevant is not None:
            row, content = relevant.unbind(dim=1)
            found = (hard_ids[row] == content[:, None]).to(torch.int32)
            mask &= torch.zeros_like(hard_ids, dtype=torch.int32).index_add(0, row, found) == 0
        return triplet_loss(query, key, vectors, mask, self.margin)

    @torch.no_grad()
    def bound_temperature(self) -> None:
        """Clamp the temperature to [0.01, 0.5], after each step of the optimizer."""
        self.log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
