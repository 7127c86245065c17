"""AUC and GAUC by slice: how does the ranker do on items it rarely saw, and on new ones?

Shape letters: N impressions.
"""

from collections.abc import Mapping

import numpy as np

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc

DAY_S = 24 * 3600
FREQUENCY_SLICES = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21-100": (21, 100)}
FREQUENT = 100


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
    young = np.zeros(len(known), dtype=bool)
    young[known] = np.asarray(timestamps)[known] - np.asarray(created_at)[known] < DAY_S
    return {"item_age/<24h": young, "item_age/>=24h": known & ~young}


def sliced(
    masks: Mapping[str, np.ndarray], user_ids: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> dict[str, dict[str, float | int | None]]:
    """AUC, GAUC and impressions of each slice, as metrics.json holds them under ``slices``.

    Args:
        masks: (N,) bool by slice name, True where the impression belongs to it.
        user_ids: (N,) int64.
        labels: (N,) 0 or 1.
        scores: (N,) float.

    Returns:
        {name: {"auc", "gauc", "impressions"}}. What is undefined (one label only, no user with
        both) is None, null in JSON: JSON has no NaN.
    """
    user_ids, labels, scores = np.asarray(user_ids), np.asarray(labels), np.asarray(scores)
    return {
        name: {
            "auc": finite_or_none(auc(labels[mask], scores[mask])),
            "gauc": finite_or_none(gauc(user_ids[mask], labels[mask], scores[mask]).gauc),
            "impressions": int(np.count_nonzero(mask)),
        }
        for name, mask in masks.items()
    }


def finite_or_none(value: float) -> float | None:
    """The value for JSON: None instead of NaN or infinity."""
    return float(value) if np.isfinite(value) else None
