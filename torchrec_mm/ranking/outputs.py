"""What every ranking model returns: TorchRec's contract ``(loss, outputs)``."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrec_mm.data.stream.batches import RequestBatch


class RankingOutputs(NamedTuple):
    """Detached results of one batch; padding is where ``candidate_mask`` is False.

    loss: () float32, this rank's share of the global batch's. logits, labels: (R, C) float32.
    candidate_mask: (R, C) bool.
    rows: (R,) int64, which requests of the data set these are.
    """

    loss: Tensor
    logits: Tensor
    labels: Tensor
    candidate_mask: Tensor
    rows: Tensor


def click_loss(batch: RequestBatch, logits: Tensor) -> tuple[Tensor, RankingOutputs]:
    """Log loss of ``logits``: (R, C), padding invisible, scaled by the batch's loss weight."""
    losses = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    loss = torch.where(batch.candidate_mask, losses, 0).sum() * batch.loss_weight
    return loss, RankingOutputs(
        loss.detach(), logits.detach(), batch.labels, batch.candidate_mask, batch.rows
    )
