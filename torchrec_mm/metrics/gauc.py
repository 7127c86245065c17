"""GAUC: AUC within each user, averaged with the user's impressions as weight.

It asks whether the ranker orders the candidates of one user well; being right about who clicks
much, which lifts AUC, does not help here.

Shape letters: N impressions, U users, T runs of tied impressions of one user.
"""

from dataclasses import dataclass
from math import fsum

import numpy as np

from torchrec_mm.metrics.auc import check_impressions, tie_counts
from torchrec_mm.metrics.order import USER_SHIFT, score_keys, starts, user_ranks


@dataclass(frozen=True)
class Gauc:
    """GAUC and what it was computed from.

    gauc: in [0, 1]; nan when no user has both labels.
    users: users in the whole set.
    gauc_users: those with both labels; only they count.
    impressions: impressions in the whole set.

    >>> Gauc(gauc=0.75, users=3, gauc_users=2, impressions=40).gauc
    0.75
    """

    gauc: float
    users: int
    gauc_users: int
    impressions: int


def gauc(user_ids: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Gauc:
    """sum_u n_u AUC_u / sum_u n_u over users with both labels, n_u = impressions of u.

    Ties count one half. Users are grouped over everything given, wherever their impressions lie:
    give the whole test set at once. O(N log N), no loop over users.

    Args:
        user_ids: (N,) int64, any values.
        labels: (N,) 0 or 1.
        scores: (N,) float, higher means more likely a click.

    Returns:
        GAUC in [0, 1], and the users that it is of.

    Raises:
        ValueError: as ``auc``, and when ``user_ids`` is of another length.

    Source: Zhou et al., KDD 2018, arXiv:1706.06978, section 5.3, weighted by impressions.

    >>> gauc(np.array([7, 7, 7, 8]), np.array([1, 0, 0, 1]), np.array([0.5, 0.5, 0.2, 0.9]))
    Gauc(gauc=0.75, users=2, gauc_users=1, impressions=4)
    """
    labels, scores = check_impressions(labels, scores)
    user_ids = check_users(user_ids, labels)
    counted = UserAucs()
    if len(labels):
        keys = user_ranks(user_ids)[0] << np.uint64(USER_SHIFT)
        keys |= score_keys(labels, scores)
        # One sort of integers brings a user's impressions together and orders them by score.
        keys.sort()
        counted.add(keys)
    return counted.gauc()


def check_users(user_ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The user ids, (N,) as the labels, or the ValueError that ``gauc`` promises."""
    user_ids = np.asarray(user_ids)
    if user_ids.shape != labels.shape:
        raise ValueError(f"user_ids must be (N,) = {labels.shape}, got {user_ids.shape}")
    return user_ids


class UserAucs:
    """GAUC of users who come some at a time, each with all impressions at once.

    Pairs won by users with equally many clicks and equally many non-clicks are added up as
    integers, so neither order nor grouping of the users changes anything; memory is one entry for
    each such pair of counts.
    """

    def __init__(self) -> None:
        self.users = 0
        self.gauc_users = 0
        self.impressions = 0
        self.twice_won: dict[tuple[int, int], int] = {}  # by clicks and non-clicks
        self.weight = 0

    def add(self, keys: np.ndarray) -> None:
        """Take some users.

        Args:
            keys: (N,) uint64 ascending, user ranks over ``score_keys``; ranks say nothing beyond
                this call.
        """
        if len(keys) == 0:
            return
        new_user = starts(keys >> np.uint64(USER_SHIFT))
        tie_starts = np.flatnonzero(starts(keys >> np.uint64(1)))
        clicks_T, others_T = tie_counts(keys, tie_starts)
        new_user_T = new_user[tie_starts]
        first_tie_U = np.flatnonzero(new_user_T)
        clicks_U = np.add.reduceat(clicks_T, first_tie_U)
        others_U = np.add.reduceat(others_T, first_tie_U)

        below_T = np.cumsum(others_T) - others_T  # of earlier users too
        won_U = np.add.reduceat(clicks_T * (2 * below_T + others_T), first_tie_U)
        won_U -= 2 * clicks_U * below_T[first_tie_U]
        self.users += len(first_tie_U)
        self.impressions += len(keys)
        both_U = (clicks_U > 0) & (others_U > 0)
        self._sum_by_counts(clicks_U[both_U], others_U[both_U], won_U[both_U])

    def _sum_by_counts(self, clicks: np.ndarray, others: np.ndarray, won: np.ndarray) -> None:
        self.gauc_users += len(won)
        self.weight += int(clicks.sum()) + int(others.sum())
        if len(won) == 0:
            return
        # Users of equal counts have one weight, so that their integers can be added before the
        # division: nothing is rounded, whatever the order of the users.
        order = np.lexsort((others, clicks))
        clicks, others, won = clicks[order], others[order], won[order]
        first = np.flatnonzero(starts(clicks) | starts(others))
        sums = np.add.reduceat(won, first)
        for *counts, total in zip(
            clicks[first].tolist(), others[first].tolist(), sums.tolist(), strict=True
        ):
            self.twice_won[tuple(counts)] = self.twice_won.get(tuple(counts), 0) + total

    def gauc(self) -> Gauc:
        """Of all users so far."""
        terms = ((c + o) * won / (2 * c * o) for (c, o), won in self.twice_won.items())
        mean = fsum(terms) / self.weight if self.weight else float("nan")
        return Gauc(mean, self.users, self.gauc_users, self.impressions)
