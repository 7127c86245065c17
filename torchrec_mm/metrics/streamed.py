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
class ScoreFigures:
    """Figures of a set of impressions, as ``auc`` and ``log_loss`` give them."""

    auc: float
    log_loss: float
    impressions: int


def measure_scores(folder: Path, slices: Sequence[str] = ()) -> dict[str, ScoreFigures]:
    """AUC and log loss of what ``ImpressionFiles`` wrote, scores being logits.

    Memory: a few windows of 2 M impressions.

    Args:
        folder: where all writers wrote. slices: as given to them.

    Returns:
        By slice, and under ``ALL`` for the whole set.
    """
    bits = SliceBits(slices)
    sums = {name: AucSum() for name in (ALL, *slices)}
    losses: dict[str, list[float]] = {name: [] for name in sums}
    for keys in read_sorted(folder, WINDOW):
        for name, part in bits.split(keys):
            sums[name].add(part)
            losses[name].append(float(losses_of(*labels_and_scores(part)).sum()))
    counts = {name: counted.clicks + counted.others for name, counted in sums.items()}
    return {
        name: ScoreFigures(
            sums[name].auc, fsum(losses[name]) / count if count else float("nan"), count
        )
        for name, count in counts.items()
    }


def measure_users(folder: Path, slices: Sequence[str] = ()) -> dict[str, Gauc]:
    """GAUC of what ``ImpressionFiles`` wrote, a partition of the users at a time.

    Memory: a few times the impressions of the largest 1/256 of the users.

    Args:
        folder: where all writers wrote. slices: as given to them.

    Returns:
        By slice, and under ``ALL`` for the whole set.

    Raises:
        ValueError: users are more than a key can tell apart: about 2**39, halved with each slice.
    """
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
    return {name: users.gauc() for name, users in sums.items()}
