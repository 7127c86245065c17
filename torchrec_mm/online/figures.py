"""What a window says of a model that has not seen it, and whether that is good enough.

Shape letters: N impressions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch.distributed as dist

from torchrec_mm.data.encoded.arrays import RequestArrays
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.log_loss import losses_of
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.online.settings import FollowSettings
from torchrec_mm.scoring.predictions import Scored


@dataclass(frozen=True)
class WindowFigures:
    """Of a window's impressions; None where one is not defined, as the AUC of clicks alone.

    calibration: mean prediction over click rate. With weights, it and the log loss are of weighted
    impressions; AUC and GAUC know nothing of weights.
    """

    impressions: int
    auc: float | None
    gauc: float | None
    log_loss: float | None
    calibration: float | None


def measure_window(scored: Iterable[Scored], arrays: RequestArrays) -> WindowFigures:
    """The same on every rank. Collective.

    ``scored``: what this rank scored of ``arrays``; all ranks' together are all of it.
    """
    users, labels, logits, weights = _gathered(scored, arrays)
    chances = 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, which never overflows
    clicks = float(labels @ weights)
    calibration = float(chances @ weights) / clicks if clicks else float("nan")
    total = float(weights.sum())
    loss = float(losses_of(labels, logits) @ weights) / total if total else float("nan")
    return WindowFigures(
        len(labels),
        finite_or_none(auc(labels, logits)),
        finite_or_none(gauc(users, labels, logits).gauc),
        finite_or_none(loss),
        finite_or_none(calibration),
    )


def _gathered(scored: Iterable[Scored], arrays: RequestArrays) -> list[np.ndarray]:
    """Users, labels, logits and weights, (N,) each, of all ranks; without weights, ones."""
    nothing = np.empty(0)
    parts = [(nothing.astype(np.int64), nothing, nothing, nothing)]
    for part in scored:
        mine = arrays.take(part.requests)
        weights = np.ones(len(part.labels)) if mine.weights is None else mine.weights
        users = mine.user_ids[mine.candidates.owners()]
        parts.append((users, part.labels, part.logits.astype(np.float64), weights))
    own = [np.concatenate(column) for column in zip(*parts, strict=True)]
    everyone = [own] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return [np.concatenate(column) for column in zip(*everyone, strict=True)]


def why_withheld(figures: WindowFigures, asked: FollowSettings) -> str | None:
    """What keeps a window from being published, in words; None if nothing does."""
    if (least := asked.least_gauc) is not None:
        if figures.gauc is None or figures.gauc < least:
            return f"gauc must be at least {least}, got {figures.gauc}"
    if (most := asked.most_miscalibration) is not None:
        calibration = figures.calibration
        if calibration is None or not 1 / most <= calibration <= most:
            rule = f"calibration must be in [{1 / most:.4g}, {most:.4g}]"
            return f"{rule}, got {calibration}"
    return None
