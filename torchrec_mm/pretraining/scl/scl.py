"""Semantic-aware contrastive learning (SCL): one training step, from a batch to its loss.

Shape letters: B pairs of this rank, H hard-negative slots, C contrasts, D vector width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from torchrec_mm.losses.false_negatives import MISSING
from torchrec_mm.losses.info_nce import Negatives
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import PairBatch
from torchrec_mm.pretraining.scl.contrast import Contrast, ContrastLoss
from torchrec_mm.pretraining.scl.momentum import momentum_copy, trained_pairs, update_pairs
from torchrec_mm.pretraining.scl.settings import LossSettings


class SCL(nn.Module):
    """An encoder, its momentum copy, and one or more contrasts between their spaces.

    Keys and hard negatives come from the momentum encoder. Pairs that lack the query or the key of
    a contrast take no part in it, but the key is a negative of others and enters the bank. The
    module knows no ranks: it is given the function that gathers rows from all of them.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "SCL". Ours: several contrasts in one run,
    and keys gathered from all ranks, so that every rank's banks are the same.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        contrasts: Sequence[Contrast],
        settings: LossSettings,
        gather: Callable[[Tensor], Tensor],
        precision: Precision,
    ) -> None:
        """Start with empty banks.

        Args:
            encoder: a side to unit vectors by space, zeros where missing.
            contrasts: at least one, none twice, between spaces of the encoder.
            settings: the same for all contrasts, with a size of the bank.
            gather: (B, ...) of this rank to the (ranks * B, ...) of all, in rank order.
            precision: of the encoders; losses are float32.
        """
        super().__init__()
        assert settings.bank_slots is not None  # what follows from the catalogue is known by now
        self.encoder = encoder
        self.momentum_encoder = momentum_copy(encoder)
        self._trained_pairs = trained_pairs(self.momentum_encoder, encoder)
        self.contrasts, self.settings = tuple(contrasts), settings
        self.gather, self.precision = gather, precision
        losses = nn.ModuleDict(
            {
                contrast.name: ContrastLoss(
                    encoder.widths[contrast.key_space],
                    bank_slots=settings.bank_slots,
                    in_batch=settings.in_batch,
                    triplet_weight=settings.triplet_weight,
                    margin=settings.margin,
                )
                for contrast in contrasts
            }
        )
        self.losses = cast(Mapping[str, ContrastLoss], losses)  # a ModuleDict does not tell of what

    def forward(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Loss of one batch; its keys enter the memory banks.

        Returns:
            loss: scalar. Its mean over the ranks is the sum over contrasts of the mean over the
                global batch's valid pairs, those with query and key; so are its gradients, which
                DistributedDataParallel averages, however unevenly the valid pairs lie.
            figures: (C, 3) float64, detached, of this rank: InfoNCE summed over its valid pairs,
                the triplet loss likewise, and their number. Sums of figures over ranks and steps
                are exact; ``named_figures`` reads them.
        """
        with self.precision.autocast():
            query = self.encoder(batch.query)
            key, hard = self._encode_slowly(batch)
        ids = torch.stack([_pair_ids(batch, contrast) for contrast in self.contrasts], dim=1)
        gathered = self._gather(key, ids)
        results = [
            self.losses[contrast.name](
                query[contrast.query_space],
                key[contrast.key_space],
                ids[:, i],
                hard and hard[contrast.key_space],
                gathered[i],
                batch.relevant.get(contrast.key_space),
            )
            for i, contrast in enumerate(self.contrasts)
        ]
        losses, figures = map(torch.stack, zip(*results, strict=True))
        return losses.sum(), figures.double()

    def after_step(self) -> None:
        """To be called after each optimizer step: move the momentum encoder, bound temperatures."""
        update_pairs(self._trained_pairs, self.settings.momentum)
        for loss in self.losses.values():
            loss.bound_temperature()

    def named_figures(self, figures: Tensor) -> dict[str, float]:
        """What to log: of each contrast its mean losses, number of valid pairs and temperature.

        Args:
            figures: (C, 3), sums of what ``forward`` gave, over ranks and any number of steps.

        Returns:
            "image/info_nce", "image/triplet", "image/pairs", "image/temperature" and so on; the
            means are 0 without pairs.
        """
        named: dict[str, float] = {}
        for contrast, (info_nce, triplet, pairs) in zip(
            self.contrasts, figures.tolist(), strict=True
        ):
            temperature = self.losses[contrast.name].log_temperature.exp().item()
            named |= {
                f"{contrast.name}/info_nce": info_nce / max(pairs, 1),
                f"{contrast.name}/triplet": triplet / max(pairs, 1),
                f"{contrast.name}/pairs": pairs,
                f"{contrast.name}/temperature": temperature,
            }
        return named

    @torch.no_grad()
    def _encode_slowly(self, batch: PairBatch) -> tuple[dict, dict | None]:
        """Keys (B, D) by space; hard negatives (B, H, D) and ids (B, H) by space, if needed.

        In two calls: one for both would have to copy all pictures and to pad all texts alike.
        """
        key = self.momentum_encoder(batch.key)
        if self.settings.triplet_weight == 0:
            return key, None
        slots = batch.query.num_rows, batch.num_hard
        hard = self.momentum_encoder(batch.hard)
        return key, {
            space: (vectors.view(*slots, vectors.shape[1]), batch.hard.ids[space].view(slots))
            for space, vectors in hard.items()
        }

    @torch.no_grad()
    def _gather(self, key: dict[str, Tensor], ids: Tensor) -> list[Negatives]:
        """Of each contrast the keys of all ranks; the keys of a space travel once."""
        spaces = list(dict.fromkeys(contrast.key_space for contrast in self.contrasts))
        rows = self.gather(torch.cat([key[space] for space in spaces], dim=1))
        parts = rows.split([key[space].shape[1] for space in spaces], dim=1)
        keys = dict(zip(spaces, parts, strict=True))
        return [
            Negatives(keys[contrast.key_space], own, own[:, 0] != MISSING)
            for contrast, own in zip(self.contrasts, self.gather(ids).unbind(dim=1), strict=True)
        ]


def _pair_ids(batch: PairBatch, contrast: Contrast) -> Tensor:
    """(B, 2) int64: of the key's content and of the query's, -1 where missing."""
    return torch.stack(
        [batch.key.ids[contrast.key_space], batch.query.ids[contrast.query_space]], dim=1
    )
