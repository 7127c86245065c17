"""The least that a step of contrastive training with a momentum encoder can be.

In-batch InfoNCE and a triplet loss on ready batches, one device, no masks, nothing logged. Shape
letters: B searches, H hard-negative slots, D vector width.
"""

import copy
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.pretraining.encoder.side import PairBatch

TEMPERATURE, MARGIN, MOMENTUM = 0.07, 0.1, 0.99


def bare_steps(
    encoder: nn.Module, batches: Sequence[PairBatch], learning_rate: float
) -> list[float]:
    """Seconds of each step; ``encoder``: a side to (rows, D) by space."""
    slow = copy.deepcopy(encoder).requires_grad_(False)
    parameters: list[Tensor] = list(encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, foreach=True)
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        loss = contrast(encoder, slow, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(slow.parameters()), parameters, 1 - MOMENTUM)
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds


def contrast(encoder: nn.Module, slow: nn.Module, batch: PairBatch) -> Tensor:
    """Sum over spaces of both losses."""
    query = encoder(batch.query)
    with torch.no_grad():
        key, hard = slow(batch.key), slow(batch.hard)
    own = torch.arange(batch.query.num_rows, device=next(iter(query.values())).device)
    total = torch.zeros(())
    for space, query_BD in query.items():
        hard_BHD = hard[space].unflatten(0, (len(own), batch.num_hard))
        cosine_BB = query_BD @ key[space].T
        violation_BH = (query_BD[:, None] * hard_BHD).sum(dim=2) - cosine_BB.diag()[:, None]
        total = total + F.cross_entropy(cosine_BB / TEMPERATURE, own)
        total = total + F.relu(violation_BH + MARGIN).mean()
    return total
