"""What the shop shows: exposure by popularity, novelty and a guess at the user's taste.

Letters: R requests, P items drawn for a request, C candidates kept of them.
"""

import numpy as np

from torchrec_mm.simulation.market.catalogue import DAY_S
from torchrec_mm.simulation.market.clicks import Items, Users, taste

POOL = 40  # items drawn for a request before the best are kept
BLOCK = 4096  # requests simulated at once: bounds memory
NEW_SHARE = 0.08  # of the pool: items less than a day old
UNIFORM_SHARE = 0.25  # of the pool: any item, so that the tail is shown


class Shop:
    """Draws items that exist at a given time. Items are in order of birth."""

    def __init__(self, items: Items, created_at: np.ndarray) -> None:
        """``created_at``: (N,) int64 seconds, ascending."""
        self.items = items
        self.created_at = created_at
        self.cumulative = np.cumsum(items.popularity)

    def pool(self, time: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """(R, size) item rows, all born at or before ``time`` (R,), repeats possible."""
        alive = np.searchsorted(self.created_at, time, side="right")[:, None]
        newborn = np.searchsorted(self.created_at, time - DAY_S, side="right")[:, None]
        draw = rng.random((len(time), size))
        popular = np.searchsorted(self.cumulative, draw * self.cumulative[alive - 1], side="right")
        anything = (draw * alive).astype(np.int64)
        fresh = np.where(alive > newborn, newborn + draw * (alive - newborn), anything)
        kind = rng.random((len(time), size))
        return np.where(
            kind < NEW_SHARE,
            fresh.astype(np.int64),
            np.where(kind < NEW_SHARE + UNIFORM_SHARE, anything, np.minimum(popular, alive - 1)),
        )

    def best(
        self, pool: np.ndarray, score: np.ndarray, keep: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keep ``keep`` distinct items a row with odds exp(score); also whether each is real.

        Returns:
            (R, keep) item rows in random order and (R, keep) bool, False where the pool had too
            few distinct items or a score of minus infinity.
        """
        score = score + rng.gumbel(size=score.shape)
        order = np.argsort(pool, axis=1, kind="stable")
        ordered = np.take_along_axis(pool, order, axis=1)
        again = np.zeros(pool.shape, dtype=bool)
        np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        score = np.where(again, -np.inf, score)
        top = np.argpartition(-score, keep - 1, axis=1)[:, :keep]
        top = rng.permuted(top, axis=1)
        real = np.isfinite(np.take_along_axis(score, top, axis=1))
        return np.take_along_axis(pool, top, axis=1), real


def shown(
    shop: Shop,
    users: Users,
    user: np.ndarray,
    time: np.ndarray,
    keep: int,
    eagerness: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``keep`` items for each of R requests, better matches more often.

    ``user`` (R,) int64 rows of ``users``, ``time`` (R,) int64 seconds, ``keep`` at most ``POOL``;
    ``eagerness`` says how strongly taste decides, 0 for not at all.

    Returns:
        (R, keep) item rows and (R, keep) bool, False where there was no further distinct item.
    """
    blocks = []
    for begin in range(0, len(user), BLOCK):
        block = slice(begin, begin + BLOCK)
        pool = shop.pool(time[block], POOL, rng)
        score = eagerness * taste(users, shop.items, user[block], pool)
        blocks.append(shop.best(pool, score, keep, rng))
    rows, real = zip(*blocks, strict=True)
    return np.concatenate(rows), np.concatenate(real)
