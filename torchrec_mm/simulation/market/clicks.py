"""The rule by which simulated users click.

    logit(u, i, place, hour) = b
        + QUALITY * quality_i                   what every user thinks of the item
        + COLLABORATIVE * <f_u, g_i> / sqrt(F)  what attributes do not explain: only ids can tell
        + TASTE * taste(u, i)                   what shows in pictures and titles
        + PLACE * place + HOUR * sin(2 pi hour / 24) + NOISE * normal

    taste(u, i) = max over the user's interests k of
        strength_uk * (sum over attributes a of weight_uka * [attribute_a(i) = wanted_uka])^2

An interest is a combination ("red striped lamps"), with weights that say what matters to this
user; the square makes it non-additive: two matches of one interest count for more than one match
of each of two. b is solved for so that the mean probability is CLICK_RATE.
"""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.simulation.market.catalogue import Catalogue

QUALITY = 0.6
COLLABORATIVE = 0.5
TASTE = 4.5
PLACE = -0.03
HOUR = 0.15
NOISE = 0.3
CLICK_RATE = 0.2

COLUMN_QUALITY = 0.5  # what a category or brand adds, where 1 is the item's own
NUM_INTERESTS = 3
NUM_FACTORS = 3
NUM_AGE_BANDS = 6


@dataclass(frozen=True)
class Items:
    """What decides how N items sell, and is in no file.

    attributes: (N, A) int64. quality: (N,) mean 0, deviation 1. factors: (N, F) normal.
    popularity: (N,) positive, how often the shop shows the item.
    """

    attributes: np.ndarray
    quality: np.ndarray
    factors: np.ndarray
    popularity: np.ndarray


@dataclass(frozen=True)
class Users:
    """U users with K interests each.

    wanted: (U, K, A) int64 attribute values. weight: (U, K, A), sums to 1 over A.
    strength: (U, K) in [0, 1], 0 for an interest the user does not have; the first is 1.
    factors: (U, F) normal. activity: (U,) positive, sums to 1. age_band: (U,) int64.
    """

    wanted: np.ndarray
    weight: np.ndarray
    strength: np.ndarray
    factors: np.ndarray
    activity: np.ndarray
    age_band: np.ndarray


def draw_items(catalogue: Catalogue, rng: np.random.Generator) -> Items:
    """Draw what is hidden; popularity is Zipf-like and only loosely follows quality."""
    num = len(catalogue)
    quality = _quality(catalogue, rng)
    rank = (0.5 * quality + rng.standard_normal(num)).argsort()[::-1].argsort()
    return Items(
        attributes=catalogue.attributes,
        quality=quality,
        factors=rng.standard_normal((num, NUM_FACTORS)),
        popularity=(rank + 20.0) ** -0.8,
    )


def _quality(catalogue: Catalogue, rng: np.random.Generator) -> np.ndarray:
    """(N,) mean 0, deviation 1: the item's own and that of its values in the given columns."""
    own = rng.standard_normal(len(catalogue))
    for column in catalogue.columns.values():
        values = np.unique(column, return_inverse=True)[1]
        own = own + COLUMN_QUALITY * rng.standard_normal(values.max() + 1)[values]
    return (own - own.mean()) / own.std()


def draw_users(num_users: int, items: Items, rng: np.random.Generator) -> Users:
    """Draw users whose interests are modelled on real items, with a weak leaning by age band."""
    width = items.attributes.shape[1]
    age_band = rng.integers(NUM_AGE_BANDS, size=num_users)
    leaning = rng.standard_normal((NUM_AGE_BANDS, len(items.quality)))
    offered = rng.integers(len(items.quality), size=(num_users, NUM_INTERESTS, 4))
    preferred = leaning[age_band[:, None, None], offered].argmax(axis=-1)[..., None]
    prototype = np.take_along_axis(offered, preferred, axis=-1)[..., 0]
    strength = rng.uniform(0.6, 1.0, (num_users, NUM_INTERESTS))
    strength[:, 0] = 1.0
    strength[np.arange(NUM_INTERESTS) >= rng.integers(1, NUM_INTERESTS + 1, (num_users, 1))] = 0.0
    activity = rng.lognormal(sigma=0.8, size=num_users)
    return Users(
        wanted=items.attributes[prototype],
        weight=rng.dirichlet(np.ones(width), (num_users, NUM_INTERESTS)),
        strength=strength,
        factors=rng.standard_normal((num_users, NUM_FACTORS)),
        activity=activity / activity.sum(),
        age_band=age_band,
    )


def taste(users: Users, items: Items, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """How well each item fits its user's best matching interest.

    ``user`` (R,) rows of ``users``, ``item`` (R, C) rows of ``items`` -> (R, C) in [0, 1].
    """
    best = np.zeros(item.shape)
    attributes = items.attributes[item]
    for interest in range(NUM_INTERESTS):
        matches = attributes == users.wanted[user, interest][:, None, :]
        share = np.einsum("rca,ra->rc", matches, users.weight[user, interest])
        best = np.maximum(best, users.strength[user, interest][:, None] * share**2)
    return best


def components(
    users: Users, items: Items, user: np.ndarray, item: np.ndarray
) -> dict[str, np.ndarray]:
    """The three parts of the logit by name, each (R, C); arguments as in ``taste``."""
    agreement = np.einsum("rcf,rf->rc", items.factors[item], users.factors[user])
    return {
        "quality": QUALITY * items.quality[item],
        "collaborative": COLLABORATIVE * agreement / np.sqrt(NUM_FACTORS),
        "taste": TASTE * taste(users, items, user, item),
    }


def intercept(logits: np.ndarray, click_rate: float = CLICK_RATE) -> float:
    """The b for which sigmoid(b + logits) has mean ``click_rate``, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(sigmoid(middle + logits)) < click_rate:
            low = middle
        else:
            high = middle
    return middle


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Click probability of a logit."""
    return 1 / (1 + np.exp(-logits))
