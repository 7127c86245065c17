"""A made-up shop in the shape of TAOBAO-MM: items by category, with vectors and a bias."""

from dataclasses import dataclass

import numpy as np

WIDTH = 128
ITEMS_PER_CATEGORY = 100
VALUES_213, VALUES_214 = 542, 121  # distinct values that are published
SKEW = 3  # an item's rank in its category is a uniform number to this power
WITHOUT_VECTOR = 0.1  # share of events, not of items
CANDIDATE_EVERY = 5  # one in so many items is ever a candidate
MEAN_SHARE, CATEGORY_SHARE = 0.09, 0.45  # of a vector's squared length
SPECTRUM = -0.33  # decay of the vectors' coordinates: cosines spread more than at random
SCALE = 127


@dataclass(frozen=True)
class Shop:
    """N items, grouped by category and most popular first; K categories, largest first.

    begin, size: (K,) int64, where the items of a category are. category: (N,) int32. ids: (N,)
    int64. category_ids: (K,) int64. attribute_213, attribute_214: (N,) int64. centres: (K, 128)
    float32 of unit length. vectors: (N, 128) int8. bias: (N,) float32. has_vector, is_candidate:
    (N,) bool; a candidate has a vector.
    """

    begin: np.ndarray
    size: np.ndarray
    category: np.ndarray
    ids: np.ndarray
    category_ids: np.ndarray
    attribute_213: np.ndarray
    attribute_214: np.ndarray
    centres: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray
    has_vector: np.ndarray
    is_candidate: np.ndarray

    def draw_items(self, categories: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An item of each category, the popular ones more often: int64 of any shape."""
        rank = rng.random(categories.shape, dtype=np.float32) ** SKEW
        return self.begin[categories] + (rank * self.size[categories]).astype(np.int64)

    def draw_candidates(self, categories: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Like ``draw_items``, of those that may be candidates; each category has one."""
        slots = _with_vector(self.size[categories] - 1) // CANDIDATE_EVERY + 1
        rank = rng.random(categories.shape, dtype=np.float32) ** SKEW
        return self.begin[categories] + (rank * slots).astype(np.int64) * CANDIDATE_EVERY

    def draw_categories(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Categories by size, int32."""
        return self.category[rng.integers(0, len(self.ids), shape)]


def make_shop(*, items: int, seed: int) -> Shop:
    """Draw a shop of at least ``ITEMS_PER_CATEGORY`` items; the same for the same arguments."""
    rng = np.random.default_rng([seed, 0])
    size = _category_sizes(items)
    begin = np.cumsum(size) - size
    category = np.repeat(np.arange(len(size), dtype=np.int32), size)
    rank = np.arange(items) - begin[category]
    has_vector = rank <= _with_vector(size[category] - 1)
    attribute_213 = rng.integers(0, VALUES_213, items)
    group_bias = rng.normal(size=VALUES_213)
    centres = _unit(rng.normal(size=(len(size), WIDTH)) * _spectrum())
    return Shop(
        begin=begin,
        size=size,
        category=category,
        ids=hash_ids(np.arange(items), 1),
        category_ids=hash_ids(np.arange(len(size)), 2),
        attribute_213=hash_ids(attribute_213, 3),
        attribute_214=hash_ids(rng.integers(0, VALUES_214, items), 4),
        centres=centres.astype(np.float32),
        vectors=_vectors(centres, category, rng),
        bias=((rng.normal(size=items) + group_bias[attribute_213]) / 2).astype(np.float32),
        has_vector=has_vector,
        is_candidate=has_vector & (rank % CANDIDATE_EVERY == 0),
    )


def hash_ids(numbers: np.ndarray, kind: int) -> np.ndarray:
    """Distinct signed 64-bit hashes of distinct numbers below 2^56; never alike for two kinds.

    Source: Steele, Lea, Flood, OOPSLA 2014 (SplitMix64's finaliser, a bijection).
    """
    x = numbers.astype(np.uint64) + np.uint64(kind << 56)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).astype(np.int64)


def _with_vector(last_rank: np.ndarray) -> np.ndarray:
    """Of a category's ranks 0 to ``last_rank``, the last that has a vector."""
    return (last_rank * (1 - WITHOUT_VECTOR) ** SKEW).astype(np.int64)


def _category_sizes(items: int) -> np.ndarray:
    """Sizes that fall with rank, sum to ``items`` and are at least 1."""
    categories = max(1, items // ITEMS_PER_CATEGORY)
    weight = (np.arange(categories) + 10.0) ** -0.7
    ends = np.round(np.cumsum(weight) / weight.sum() * (items - categories)).astype(np.int64)
    return np.diff(ends, prepend=0) + 1


def _vectors(centres: np.ndarray, category: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """trunc(127 * unit vector): a part common to all, one of the category, one of the item."""
    common = _unit(rng.normal(size=WIDTH) * _spectrum())
    own_share = 1 - MEAN_SHARE - CATEGORY_SHARE
    values = np.empty((len(category), WIDTH), dtype=np.int8)
    for begin in range(0, len(values), 100_000):
        block = category[begin : begin + 100_000]
        own = _unit(rng.standard_normal((len(block), WIDTH), dtype=np.float32) * _spectrum())
        mixed = MEAN_SHARE**0.5 * common + CATEGORY_SHARE**0.5 * centres[block]
        values[begin : begin + len(block)] = SCALE * _unit(mixed + own_share**0.5 * own)
    return values


def _spectrum() -> np.ndarray:
    return (np.arange(WIDTH, dtype=np.float32) + 1) ** np.float32(SPECTRUM)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)
