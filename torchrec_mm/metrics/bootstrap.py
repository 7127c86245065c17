"""How sure figures are of the users they were measured on: the bootstrap over users.

Impressions of a user are no independent draws, users are: a resample draws as many users as there
are, with replacement, and each brings all its impressions. Rankers that scored the same impressions
are measured on the same resamples, so that what they differ by is as sure as it can be.

Shape letters: N impressions, U users, B resamples, b of them at a time, T runs of tied impressions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from torchrec_mm.metrics.auc import check_impressions
from torchrec_mm.metrics.gauc import check_users
from torchrec_mm.metrics.log_loss import losses_of
from torchrec_mm.metrics.order import score_keys, starts

FIGURES = ("auc", "gauc", "log_loss", "calibration")
AT_ONCE = 1 << 22  # weights of impressions in memory


def resampled_figures(
    user_ids: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """AUC, GAUC, log loss and calibration of all users, then of each resample of them.

    calibration: predicted clicks over clicks, 1 where the ranker neither exaggerates nor
    understates. O(N log N + B N), no loop over users.

    Args:
        user_ids: (N,) int64. labels: (N,) 0 or 1. logits: (N,) float, before the sigmoid.
        resamples: B, at least 0. seed: equal seeds draw equal users from equal sets of users.

    Returns:
        (1 + B,) float64 by the names of ``FIGURES``, the whole set first; nan where a resample
        has no such figure, as with clicks alone.

    Raises:
        ValueError: as ``gauc``.
    """
    labels, logits = check_impressions(labels, logits)
    user_ids = check_users(user_ids, labels)
    users, owners = np.unique(user_ids, return_inverse=True)
    ranked = _Ranked.of(owners, labels, logits)
    sums = _sums_of_users(len(users), owners, labels, logits)
    rows = max(1, AT_ONCE // max(1, len(labels)))
    parts = [
        _figures(weights, ranked, sums) for weights in _weights(len(users), resamples, seed, rows)
    ]
    return dict(zip(FIGURES, np.concatenate(parts, axis=1), strict=True))


@dataclass(frozen=True)
class Interval:
    """What lies within 95 % of resamples around ``value``.

    p: two-sided, how easily a difference of 0 would give one as large; None of a figure itself.
    """

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def is_tie(self) -> bool:
        """Whether 0 lies within."""
        return self.low <= 0 <= self.high

    @classmethod
    def of(cls, figures: np.ndarray) -> "Interval":
        """Of one figure, (1 + B,) as ``resampled_figures`` gives it."""
        low, high = np.nanquantile(figures[1:], (0.025, 0.975)).tolist()
        return cls(float(figures[0]), low, high)

    @classmethod
    def of_difference(cls, ours: np.ndarray, others: np.ndarray) -> "Interval":
        """Of ``ours - others``, paired by resample: both of the same users and seed."""
        differences = ours - others
        interval = cls.of(differences)
        drawn = differences[1:][~np.isnan(differences[1:])]
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (int(rarer) + 1) / (len(drawn) + 1))
        return cls(interval.value, interval.low, interval.high, p)


def _weights(users: int, resamples: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """(b, U) float64, how often each resample has each user; all of them once come first."""
    generator = np.random.default_rng(seed)
    yield np.ones((1, users))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = [
            np.bincount(generator.integers(0, users, users), minlength=users) for _ in range(count)
        ]
        yield np.stack(drawn).astype(np.float64)


@dataclass(frozen=True)
class _Ranked:
    """Impressions by ascending score: owners (N,) of users, clicks (N,) float64, ties (T,)."""

    owners: np.ndarray
    clicks: np.ndarray
    ties: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> "_Ranked":
        keys = score_keys(labels, logits)
        order = np.argsort(keys)
        ties = np.flatnonzero(starts(keys[order] >> np.uint64(1)))
        return cls(owners[order], labels[order].astype(np.float64), ties)

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """(b,) weighted AUC, an impression weighing what its user does in (b, U)."""
        if len(self.owners) == 0:
            return np.full(len(weights), np.nan)
        of_impressions = weights[:, self.owners]
        clicks = np.add.reduceat(of_impressions * self.clicks, self.ties, axis=1)
        others = np.add.reduceat(of_impressions * (1 - self.clicks), self.ties, axis=1)
        below = np.cumsum(others, axis=1) - others
        won = (clicks * (below + others / 2)).sum(axis=1)
        return _ratio(won, clicks.sum(axis=1) * others.sum(axis=1))


def _sums_of_users(
    users: int, owners: np.ndarray, labels: np.ndarray, logits: np.ndarray
) -> np.ndarray:
    """(6, U) float64: numerator and denominator of GAUC, log loss and calibration."""

    def summed(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(owners, values, minlength=users).astype(np.float64)

    clicks, impressions = summed(labels), summed()
    others = impressions - clicks
    both = (clicks > 0) & (others > 0)
    won = _won(owners, labels, logits, users)
    aucs = np.divide(won, clicks * others, out=np.zeros(users), where=both)
    rates = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return np.stack(
        [
            *(impressions * aucs, impressions * both),
            *(summed(losses_of(labels, logits)), impressions),
            *(summed(rates), clicks),
        ]
    )


def _won(owners: np.ndarray, labels: np.ndarray, logits: np.ndarray, users: int) -> np.ndarray:
    """(U,) float64: of each user's pairs of click and non-click, those in order, ties one half."""
    if len(owners) == 0:
        return np.zeros(users)
    keys = score_keys(labels, logits)
    order = np.lexsort((keys, owners))
    owners, ties = owners[order], keys[order] >> np.uint64(1)
    clicked = labels[order].astype(np.float64)
    first = np.flatnonzero(starts(owners) | starts(ties))
    clicks = np.add.reduceat(clicked, first)
    others = np.add.reduceat(1 - clicked, first)
    below = np.cumsum(others) - others  # of earlier users too
    of_user = np.flatnonzero(starts(owners[first]))
    below -= np.repeat(below[of_user], np.diff(of_user, append=len(first)))
    return np.bincount(owners[first], clicks * (below + others / 2), minlength=users)


def _figures(weights: np.ndarray, ranked: _Ranked, sums: np.ndarray) -> np.ndarray:
    """(4, b) of ``FIGURES``."""
    won, of_both, losses, impressions, predicted, clicks = sums @ weights.T
    rest = (won, of_both), (losses, impressions), (predicted, clicks)
    return np.stack([ranked.auc(weights), *(_ratio(*pair) for pair in rest)])


def _ratio(ours: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.divide(ours, base, out=np.full(len(ours), np.nan), where=base > 0)
