"""What every ranking model returns: TorchRec's contract ``(loss, outputs)``."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from torchrec_mm.data.stream.batches import RequestBatch


class RankingOutputs(NamedTuple):
    """Detached results of one batch, impressions of one request after another's.

    loss: () float32, this rank's share of the global batch's. logits, labels: (I,) float32.
    offsets: (R + 1,) int64, where each request's impressions begin.
    rows: (R,) int64, which requests of the data set these are.
    """

    loss: Tensor
    logits: Tensor
    labels: Tensor
    offsets: Tensor
    rows: Tensor


def click_loss(batch: RequestBatch, logits: Tensor) -> tuple[Tensor, RankingOutputs]:
    """Log loss of ``logits``: (I,), weighted, scaled by the batch's loss weight."""
    loss = F.binary_cross_entropy_with_logits(logits, batch.labels, batch.weights, reduction="sum")
    loss = loss * batch.loss_weight
    return loss, RankingOutputs(
        loss.detach(), logits.detach(), batch.labels, batch.candidate_offsets, batch.rows
    )
