"""What the simulated market sells: hidden attributes, quality, popularity, dates of birth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchrec_mm.simulation.market.words import NUM_VALUES, product_titles

DAY_S = 86_400
START = 1_704_067_200  # 2024-01-01 00:00 UTC, the first simulated day
BORN_SHARE = 0.20  # of the items, born while requests are simulated
MISSING_SHARE = 0.03  # of the items lack the title, and as many others the picture
NUM_BRANDS = 40
SHAPES_PER_CATEGORY = 2


@dataclass(frozen=True)
class Catalogue:
    """All items in order of birth, so that "what exists at time t" is a prefix; N items.

    item_ids: (N,) int64 unique. created_at: (N,) int64 seconds, ascending.
    attributes: (N, A) int64, the hidden attributes, value v of attribute a in [0, num_values[a]).
    columns: attribute columns the ranker is given, each (N,) int64.
    titles: N strings, None where the title is missing.
    pictures: N encoded pictures, None where missing; None as a whole when they are to be drawn.
    has_picture: (N,) bool.
    """

    item_ids: np.ndarray
    created_at: np.ndarray
    attributes: np.ndarray
    columns: Mapping[str, np.ndarray]
    titles: list[str | None]
    pictures: list[bytes | None] | None
    has_picture: np.ndarray

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def num_values(self) -> np.ndarray:
        """(A,) values per attribute."""
        return self.attributes.max(axis=0) + 1


def draw_catalogue(*, num_items: int, days: int, seed: int) -> Catalogue:
    """Invent ``num_items`` items: attributes, brand, title, date of birth, what is missing.

    The ranker is given ``category`` (coarse: two shapes share one) and ``brand``; colour, pattern,
    material and trim show only in the picture and the title.
    """
    rng = np.random.default_rng([seed, 0])
    attributes = np.stack(
        [rng.choice(n, size=num_items, p=_uneven_shares(n, rng)) for n in NUM_VALUES], axis=1
    )
    brand = rng.integers(NUM_BRANDS, size=num_items)
    missing = rng.permutation(num_items)
    num_missing = round(num_items * MISSING_SHARE)
    titles: list[str | None] = list(product_titles(attributes, brand, rng))
    for row in missing[:num_missing]:
        titles[row] = None
    has_picture = np.ones(num_items, dtype=bool)
    has_picture[missing[num_missing : 2 * num_missing]] = False
    return Catalogue(
        item_ids=_scattered_ids(num_items, rng),
        created_at=births(num_items, days, rng),
        attributes=attributes,
        columns={"category": attributes[:, 0] // SHAPES_PER_CATEGORY, "brand": brand},
        titles=titles,
        pictures=None,
        has_picture=has_picture,
    )


def births(num_items: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending seconds: most in the year before the warm-up, the rest while the market runs."""
    num_born = round(num_items * BORN_SHARE)
    old = START - rng.integers(40 * DAY_S, 365 * DAY_S, size=num_items - num_born)
    born = START + rng.integers(0, days * DAY_S, size=num_born)
    return np.sort(np.concatenate([old, born]))


def _uneven_shares(num_values: int, rng: np.random.Generator) -> np.ndarray:
    shares = rng.uniform(0.5, 1.5, size=num_values)
    return shares / shares.sum()


def _scattered_ids(num: int, rng: np.random.Generator) -> np.ndarray:
    """Ids as real systems have them: unordered, of either sign, not a dense range."""
    ids = np.unique(rng.integers(-(10**12), 10**12, size=2 * num))
    return rng.permutation(ids)[:num]
