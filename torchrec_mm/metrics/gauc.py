"""GAUC: AUC within each user, averaged with the user's impressions as weight.

It asks whether the ranker orders the candidates of one user well; being right about who clicks
much, which lifts AUC, does not help here.

Shape letters: N impressions, U users, T runs of tied impressions of one user.
"""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.metrics.auc import check_impressions, starts, tie_counts


@dataclass(frozen=True)
class Gauc:
    """GAUC and what it was computed from.

    gauc: in [0, 1]; nan when no user has both labels.
    users: users in the whole set.
    gauc_users: those with both labels; only they count.
    impressions: impressions in the whole set.
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

    Raises:
        ValueError: as ``auc``, and when ``user_ids`` is of another length.
    """
    labels, scores = check_impressions(labels, scores)
    user_ids = np.asarray(user_ids)
    if user_ids.shape != labels.shape:
        raise ValueError(f"user_ids must be (N,) = {labels.shape}, got {user_ids.shape}")
    if len(labels) == 0:
        return Gauc(float("nan"), 0, 0, 0)
    order = np.lexsort((scores, user_ids))
    user_ids, labels, scores = user_ids[order], labels[order], scores[order]

    new_user = starts(user_ids)
    tie_starts = np.flatnonzero(new_user | starts(scores))
    clicks_T, others_T = tie_counts(labels, tie_starts)
    first_tie_U = np.flatnonzero(new_user[tie_starts])
    user_T = np.cumsum(new_user[tie_starts]) - 1

    seen_T = np.cumsum(others_T) - others_T
    below_T = seen_T - seen_T[first_tie_U][user_T]  # non-clicks of the same user ranked lower
    twice_won_U = np.add.reduceat(clicks_T * (2 * below_T + others_T), first_tie_U)
    clicks_U = np.add.reduceat(clicks_T, first_tie_U)
    others_U = np.add.reduceat(others_T, first_tie_U)

    both_U = (clicks_U > 0) & (others_U > 0)
    weight = (clicks_U + others_U)[both_U]
    auc_of_users = twice_won_U[both_U] / (2 * clicks_U[both_U] * others_U[both_U])
    mean = float(auc_of_users @ weight / weight.sum()) if len(weight) else float("nan")
    return Gauc(mean, len(first_tie_U), len(weight), len(labels))
