"""AUC: how often a clicked impression is ranked above one that was not. Exact, ties one half.

Shape letters: N impressions, T runs of tied impressions.
"""

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of all impressions, O(N log N).

    Equal to P(score of a click > score of a non-click) + P(equal) / 2; counted in integers, so
    the order of the impressions changes nothing.

    Args:
        labels: (N,) 0 or 1, any numeric dtype or bool.
        scores: (N,) float, higher means more likely a click; logit or probability.

    Returns:
        A float in [0, 1]; nan when one of the two labels does not occur (N = 0 included).

    Raises:
        ValueError: lengths differ, a label is not 0 or 1, or a score is NaN.
    """
    labels, scores = check_impressions(labels, scores)
    order = np.argsort(scores, kind="stable")
    labels, scores = labels[order], scores[order]
    clicks_T, others_T = tie_counts(labels, np.flatnonzero(starts(scores)))
    pairs = int(clicks_T.sum()) * int(others_T.sum())
    if pairs == 0:
        return float("nan")
    below_T = np.cumsum(others_T) - others_T
    return int((clicks_T * (2 * below_T + others_T)).sum()) / (2 * pairs)


def check_impressions(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 and scores, both (N,), or the ValueError that ``auc`` promises."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels and scores must be (N,), got {labels.shape} and {scores.shape}")
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise ValueError(f"labels must be 0 or 1, got {labels[wrong[0]]} at {wrong[0]}")
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise ValueError(f"scores must not be NaN, got NaN at {wrong[0]}")
    return labels.astype(np.int64), scores


def starts(values: np.ndarray) -> np.ndarray:
    """(N,) bool, True where a sorted array begins a new value."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def tie_counts(labels: np.ndarray, tie_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and non-clicks, each (T,) int64, of every run of tied impressions."""
    if len(labels) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    clicks_T = np.add.reduceat(labels, tie_starts)
    return clicks_T, np.diff(tie_starts, append=len(labels)) - clicks_T
