"""Made-up users of a TAOBAO-MM-shaped shop: interests, histories, candidates, clicks."""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.simulation.market import clicks
from torchrec_mm.simulation.taobao_mm.shop import SCALE, Shop

INTERESTS = 160  # categories of one user, as published histories show
MAIN_INTERESTS = 16  # those that decide on clicks
REPEATS = 0.33  # share of events that look at the previous event's item again
NEW_EVENTS = 50  # events between a user's training and test snapshots
SHORTER = 0.06  # share of users whose history is shorter than the longest
BY_INTEREST = 0.5  # share of candidates of the user's main interests, the others by popularity
CLICK_RATE = 0.137
AFFINITY_WEIGHT, BIAS_WEIGHT = 4.0, 0.8
PROFILE_SIZES = (11, 3, 49, 493, 6)  # distinct values of 130_1 .. 130_5, as published
PROFILE_UNKNOWN = 0.15  # share of users whose last value is not known


@dataclass(frozen=True)
class Users:
    """n users with the same draws of events; see ``snapshot``.

    numbers: (n,) int64. interests: (n, 160) int32 categories, the strongest first. events:
    (n, behaviours + 50) int64 items, oldest first. lengths: (n,) int64 behaviours of each.
    profile: (n, 5) int64 values, from 1 up; 0 where not known.
    """

    numbers: np.ndarray
    interests: np.ndarray
    events: np.ndarray
    lengths: np.ndarray
    profile: np.ndarray

    def snapshot(self, test: bool) -> np.ndarray:
        """(lengths.sum(),) items of the histories as they were for training or for the test."""
        longest = self.events.shape[1] - NEW_EVENTS
        events = self.events[:, NEW_EVENTS:] if test else self.events[:, :longest]
        return events[np.arange(longest) >= longest - self.lengths[:, None]]


def draw_users(
    shop: Shop, first: int, count: int, behaviours: int, rng: np.random.Generator
) -> Users:
    """Users ``first`` to ``first + count - 1`` with at most ``behaviours`` behaviours."""
    interests = shop.draw_categories((count, INTERESTS), rng)
    length = behaviours + NEW_EVENTS
    is_new = rng.random((count, length), dtype=np.float32) >= REPEATS
    visit = np.cumsum(is_new, axis=1, dtype=np.int32)
    # Squared, so that the first interests have most visits.
    drawn = rng.random((count, int(visit.max()) + 1), dtype=np.float32)
    slot = (drawn**2 * INTERESTS).astype(int)
    items = shop.draw_items(np.take_along_axis(interests, slot, axis=1), rng)
    lengths = np.full(count, behaviours)
    shorter = rng.random(count) < SHORTER
    lengths[shorter] = rng.integers(max(1, behaviours // 3), behaviours + 1, shorter.sum())
    profile = np.stack([rng.integers(1, size + 1, count) for size in PROFILE_SIZES], axis=1)
    profile[rng.random(count) < PROFILE_UNKNOWN, -1] = 0
    return Users(
        numbers=np.arange(first, first + count),
        interests=interests,
        events=np.take_along_axis(items, visit, axis=1),
        lengths=lengths,
        profile=profile,
    )


def draw_impressions(
    shop: Shop, users: Users, candidates: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) int64 items that users see, (n, C) float32 logits of a click, up to a constant."""
    shape = len(users.numbers), candidates
    slot = (rng.random(shape, dtype=np.float32) ** 2 * MAIN_INTERESTS).astype(int)
    liked = np.take_along_axis(users.interests, slot, axis=1)
    category = np.where(rng.random(shape) < BY_INTEREST, liked, shop.draw_categories(shape, rng))
    items = shop.draw_candidates(category, rng)
    vectors = shop.vectors[items].astype(np.float32) / SCALE
    centres = shop.centres[users.interests[:, :MAIN_INTERESTS]]
    affinity = (vectors @ centres.transpose(0, 2, 1)).max(axis=2)
    return items, AFFINITY_WEIGHT * affinity + BIAS_WEIGHT * shop.bias[items]


def intercept(shop: Shop, seed: int) -> float:
    """The constant that makes logits give ``CLICK_RATE`` clicks, found on a sample."""
    rng = np.random.default_rng([seed, 1])
    logits = draw_impressions(shop, draw_users(shop, 0, 1000, 1, rng), 20, rng)[1]
    return clicks.intercept(logits, CLICK_RATE)
