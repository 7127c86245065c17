"""Exact AUC, GAUC and log loss of impressions on disk, whole and by slice, in bounded memory.

The same steps as ``auc`` and ``gauc``, a partition of users and a window of scores at a time. All
sums are integers, or floats added in the order of the scores: the result does not depend on how
many writers there were, nor on what came when.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import numpy as np

from torchrec_mm.metrics.auc import AucSum
from torchrec_mm.metrics.gauc import Gauc, UserAucs
from torchrec_mm.metrics.impression_files import read_partitions, read_sorted
from torchrec_mm.metrics.log_loss import losses_of
from torchrec_mm.metrics.order import ALL, USER_SHIFT, SliceBits, labels_and_scores, user_ranks

WINDOW = 1 << 21


@dataclass(frozen=True)
class Measured:
    """Figures of one set of impressions, as ``auc``, ``log_loss`` and ``gauc`` give them."""

    auc: float
    log_loss: float
    grouped: Gauc


def measure(folder: Path, slices: Sequence[str] = ()) -> dict[str, Measured]:
    """AUC, log loss and GAUC of what ``ImpressionFiles`` wrote, all writers together.

    Memory: the impressions of the largest 1/256 of the users, or a window of 2 M impressions.

    Args:
        folder: where they wrote. slices: as given to them.

    Returns:
        By slice, and under ``ALL`` for the whole set.

    Raises:
        ValueError: users are more than a key can tell apart: about 2**39, halved with each slice.
    """
    grouped = {name: users.gauc() for name, users in _sum_users(folder, slices).items()}
    aucs = {name: AucSum() for name in grouped}
    losses: dict[str, list[float]] = {name: [] for name in grouped}
    for keys in read_sorted(folder, WINDOW):
        for name, part in SliceBits(slices).split(keys):
            aucs[name].add(part)
            losses[name].append(float(losses_of(*labels_and_scores(part)).sum()))
    return {
        name: Measured(
            aucs[name].auc,
            fsum(losses[name]) / count if (count := grouped[name].impressions) else float("nan"),
            grouped[name],
        )
        for name in grouped
    }


def _sum_users(folder: Path, slices: Sequence[str]) -> dict[str, UserAucs]:
    bits = SliceBits(slices)
    sums = {name: UserAucs() for name in (ALL, *slices)}
    for user_ids, keys in read_partitions(folder):
        ranks, count = user_ranks(user_ids)
        if count > 1 << (64 - USER_SHIFT - len(slices)):
            raise ValueError(f"users must be about 2**{39 - len(slices)} at most, got more")
        keys |= ranks << (np.uint64(USER_SHIFT) + bits.shift)
        keys.sort()
        for name, part in bits.split(keys):
            sums[name].add(part)
    return sums
