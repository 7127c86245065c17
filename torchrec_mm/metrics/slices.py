"""AUC and GAUC by slice: how does the ranker do on items it rarely saw, and on new ones?

Shape letters: N impressions.
"""

from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.metrics.gauc import Gauc
from torchrec_mm.metrics.order import ALL
from torchrec_mm.metrics.streamed import ScoreFigures, measure_scores, measure_users

DAY_S = 24 * 3600
# 0 by itself: an item that no training request showed has an ID embedding that never learned.
FREQUENCY_SLICES = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21-100": (21, 100)}
FREQUENT = 100
AGE_SLICES = ("item_age/<24h", "item_age/>=24h")
# All of them, whatever the data are: every rank writes files with the same masks.
SLICES = (
    *(f"item_frequency/{name}" for name in (*FREQUENCY_SLICES, f">{FREQUENT}")),
    *AGE_SLICES,
)


def frequency_slices(frequency: np.ndarray) -> dict[str, np.ndarray]:
    """Masks by how often the target item was a candidate in training.

    Args:
        frequency: (N,) int >= 0, one an impression.

    Returns:
        (N,) bool by name, ``item_frequency/0`` to ``item_frequency/>100``; each impression is in
        exactly one.
    """
    frequency = np.asarray(frequency)
    masks = {
        f"item_frequency/{name}": (frequency >= low) & (frequency <= high)
        for name, (low, high) in FREQUENCY_SLICES.items()
    }
    return masks | {f"item_frequency/>{FREQUENT}": frequency > FREQUENT}


def age_slices(
    timestamps: np.ndarray, created_at: np.ndarray, known: np.ndarray
) -> dict[str, np.ndarray]:
    """Masks by the target item's age at the time of the request.

    Args:
        timestamps: (N,) int64 seconds, of the request.
        created_at: (N,) int64 seconds, of the target item.
        known: (N,) bool, True where both times are known; elsewhere they may hold anything and
            the impression is in neither slice.

    Returns:
        (N,) bool by name: ``item_age/<24h`` (an item dated after the request included) and
        ``item_age/>=24h``; empty when no impression has both times.
    """
    known = np.asarray(known, dtype=bool)
    if not known.any():
        return {}
    # Of known times alone: a difference with what stands for an unknown one may overflow.
    young = np.zeros(len(known), dtype=bool)
    young[known] = np.asarray(timestamps)[known] - np.asarray(created_at)[known] < DAY_S
    return dict(zip(AGE_SLICES, (young, known & ~young), strict=True))


def measure_slices(folder: Path) -> dict[str, Any]:
    """What metrics.json says about impressions in files, whole and under ``slices``.

    Args:
        folder: where ``ImpressionFiles`` wrote, with the names of ``SLICES``.

    Returns:
        "auc", "gauc", "log_loss", "impressions", "users", "gauc_users", and "slices": {name:
        {"auc", "gauc", "impressions"}}, those of age left out where no impression has both times.
        An AUC or GAUC that is undefined (one label only, no user with both) is None, null in
        JSON: JSON has no NaN.
    """
    scores, users = measure_scores(folder, SLICES), measure_users(folder, SLICES)
    aged = any(scores[name].impressions for name in AGE_SLICES)
    named = SLICES if aged else tuple(name for name in SLICES if name not in AGE_SLICES)
    return {
        **_figures(scores[ALL], users[ALL]),
        "log_loss": scores[ALL].log_loss,
        "users": users[ALL].users,
        "gauc_users": users[ALL].gauc_users,
        "slices": {name: _figures(scores[name], users[name]) for name in named},
    }


def _figures(scores: ScoreFigures, users: Gauc) -> dict[str, float | int | None]:
    return {
        "auc": finite_or_none(scores.auc),
        "gauc": finite_or_none(users.gauc),
        "impressions": scores.impressions,
    }


def finite_or_none(value: float) -> float | None:
    """The value for JSON: None instead of NaN or infinity."""
    return float(value) if np.isfinite(value) else None
