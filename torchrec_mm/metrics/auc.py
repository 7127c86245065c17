"""AUC: how often a clicked impression is ranked above one that was not. Exact, ties one half.

Shape letters: N impressions, T runs of tied impressions.
"""

import numpy as np

from torchrec_mm.metrics.order import score_keys, starts


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

    >>> auc(np.array([1, 0, 0, 1]), np.array([0.9, 0.1, 0.5, 0.5]))
    0.875
    """
    keys = score_keys(*check_impressions(labels, scores))
    keys.sort()
    counted = AucSum()
    counted.add(keys)
    return counted.auc


class AucSum:
    """AUC of impressions that come in ascending order, some at a time.

    Counted in integers: how they are cut into pieces changes nothing, inside a tie neither.
    """

    def __init__(self) -> None:
        self.clicks = 0
        self.others = 0
        self.twice_won = 0
        self._last_tie = (-1, 0)  # its score, and its non-clicks so far

    def add(self, keys: np.ndarray) -> None:
        """Take the next impressions.

        Args:
            keys: (N,) uint64 of ``score_keys``, ascending, none below those before; of a tie the
                non-clicks come first.
        """
        if len(keys) == 0:
            return
        ties = keys >> np.uint64(1)  # without the label
        clicks_T, others_T = tie_counts(keys, np.flatnonzero(starts(ties)))
        clicks, others = int(clicks_T.sum()), int(others_T.sum())
        below_T = np.cumsum(others_T) - others_T
        # Doubled, so that the half a tie counts is whole.
        self.twice_won += int((clicks_T * (2 * below_T + others_T)).sum())
        # All that came before scored lower.
        self.twice_won += 2 * self.others * clicks
        tied_before = self._last_tie[1] if self._last_tie[0] == int(ties[0]) else 0
        # A tie that goes on: its pairs across the cut were counted as won; they are halves.
        self.twice_won -= tied_before * int(clicks_T[0])
        if len(clicks_T) > 1:
            tied_before = 0
        self._last_tie = (int(ties[-1]), tied_before + int(others_T[-1]))
        self.clicks += clicks
        self.others += others

    @property
    def auc(self) -> float:
        """Of all that came; nan when one of the two labels did not."""
        pairs = self.clicks * self.others
        return self.twice_won / (2 * pairs) if pairs else float("nan")


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


def tie_counts(keys: np.ndarray, tie_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and non-clicks, each (T,) int64, of every run of tied impressions; N > 0."""
    labels = (keys & np.uint64(1)).astype(np.int64)
    clicks_T = np.add.reduceat(labels, tie_starts)
    return clicks_T, np.diff(tie_starts, append=len(keys)) - clicks_T
