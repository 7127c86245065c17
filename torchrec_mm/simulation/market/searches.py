"""Simulated searches: what was wanted, what was clicked and not bought."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from torchrec_mm.simulation.market.catalogue import Catalogue
from torchrec_mm.simulation.market.clicks import Users, taste
from torchrec_mm.simulation.market.requests import visit_times
from torchrec_mm.simulation.market.shop import BLOCK, POOL, Shop
from torchrec_mm.simulation.market.words import attribute_queries, title_queries

EAGERNESS = 4.0  # how strongly taste decides what is bought
TEXT_ONLY, PHOTO_ONLY = 0.2, 0.2  # shares of the searches; the others have both
MOST_LOOKALIKES = 4
LOOKALIKE_POOL = 32


@dataclass(frozen=True)
class Searches:
    """S searches in order of time.

    user, timestamp, purchased: (S,) int64 (user and item as rows).
    texts: S strings or None. has_photo: (S,) bool; a search has a text, a photo or both.
    clicked: item rows end to end, ``num_clicked`` (S,) of them each, similar to the purchased item
    but not the same in every attribute.
    """

    user: np.ndarray
    timestamp: np.ndarray
    purchased: np.ndarray
    texts: list[str | None]
    has_photo: np.ndarray
    clicked: np.ndarray
    num_clicked: np.ndarray


def simulate_searches(
    shop: Shop,
    users: Users,
    catalogue: Catalogue,
    *,
    num_searches: int,
    train_days: int,
    rng: np.random.Generator,
) -> Searches:
    """Simulate searches of the training days only: the test days' items have none."""
    user = rng.choice(len(users.activity), size=num_searches, p=users.activity)
    timestamp = visit_times(num_searches, train_days, rng)
    blocks = []
    for begin in range(0, num_searches, BLOCK):
        block = slice(begin, begin + BLOCK)
        pool = shop.pool(timestamp[block], POOL, rng)
        score = EAGERNESS * taste(users, shop.items, user[block], pool)
        blocks.append(shop.best(pool, score, 1, rng)[0][:, 0])
    purchased = np.concatenate(blocks)
    texts, has_photo = _queries(catalogue, purchased, rng)
    clicked, real = _lookalikes(shop, purchased, timestamp, rng)
    return Searches(user, timestamp, purchased, texts, has_photo, clicked[real], real.sum(axis=1))


def _queries(
    catalogue: Catalogue, purchased: np.ndarray, rng: np.random.Generator
) -> tuple[list[str | None], np.ndarray]:
    """Texts (S, None where not typed) and whether there is a photo (S,)."""
    kind = rng.random(len(purchased))
    if catalogue.pictures is None:  # hidden attributes have words and can be drawn again
        texts = attribute_queries(catalogue.attributes[purchased], rng)
        can_type = can_show = np.ones(len(purchased), dtype=bool)
    else:
        titles = [catalogue.titles[row] for row in purchased.tolist()]
        texts = title_queries([title or "" for title in titles], rng)
        can_type = np.array([bool(title) for title in titles])
        can_show = catalogue.has_picture[purchased]
    has_photo = can_show & ((kind >= TEXT_ONLY) | ~can_type)
    has_text = can_type & ((kind < 1 - PHOTO_ONLY) | ~can_show)
    return [text if has else None for text, has in zip(texts, has_text, strict=True)], has_photo


def _lookalikes(
    shop: Shop, purchased: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Items born by then that share most attributes with the purchased one, but not all.

    Each search looks among items that share two random attributes, so every attribute is at some
    time the one that differs.

    Returns:
        (S, MOST_LOOKALIKES) item rows and (S, MOST_LOOKALIKES) bool, True where clicked.
    """
    attributes = shop.items.attributes
    pairs = list(combinations(range(attributes.shape[1]), 2)) or [(0, 0)]
    pair = rng.integers(len(pairs), size=len(purchased))
    clicked = np.zeros((len(purchased), MOST_LOOKALIKES), dtype=np.int64)
    real = np.zeros(clicked.shape, dtype=bool)
    for number, (first, second) in enumerate(pairs):
        searches = np.flatnonzero(pair == number)
        key = attributes[:, first] * (attributes[:, second].max() + 1) + attributes[:, second]
        pool = _same_key(key, purchased[searches], rng)
        matches = (attributes[pool] == attributes[purchased[searches]][:, None]).sum(axis=2)
        fits = (matches < attributes.shape[1]) & (shop.created_at[pool] <= time[searches, None])
        score = np.where(fits, 2.0 * matches, -np.inf)
        clicked[searches], real[searches] = shop.best(pool, score, MOST_LOOKALIKES, rng)
    wanted = rng.integers(MOST_LOOKALIKES + 1, size=(len(purchased), 1))
    return clicked, real & (real.cumsum(axis=1) <= wanted)


def _same_key(key: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, LOOKALIKE_POOL) random item rows with the key of ``item`` (S,); itself is possible."""
    order = np.argsort(key, kind="stable")
    begin = np.searchsorted(key[order], key[item])
    end = np.searchsorted(key[order], key[item], side="right")
    draw = rng.random((len(item), LOOKALIKE_POOL))
    return order[(begin[:, None] + draw * (end - begin)[:, None]).astype(np.int64)]
