"""Further columns that matter for clicks, of a market that has them (``--features full``).

    logit + BUDGET * (1 - |ln price_i - ln budget_u|)   a price far from what the user spends
          + DISCOUNT * discount                         what the item is offered for, at that time
          + TAGS * (share of the item's tags that the user likes)
          + POSITION * place                            beside the rule's own PLACE

Ids can tell next to nothing of discounts and places, which differ from impression to impression,
and of prices and tags only what many impressions of an item show.
"""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.columns.jagged import Jagged, offsets_of

BUDGET = 0.8
DISCOUNT = 3.0
TAGS = 2.0
POSITION = -0.12

SPREAD = 0.8  # deviation of the logarithm of prices, and of budgets
MEAN_PRICE = 20.0
MISSING_PRICES = 0.03
NUM_TAGS = 60
TAGS_AN_ITEM = (1, 5)  # fewest and most
LIKED_TAGS = 10  # a user
OFFERED = 0.3  # share of the impressions with a discount
MOST_DISCOUNT = 0.5


@dataclass(frozen=True)
class Extras:
    """Of N items and U users.

    price: (N,) positive. is_known: (N,) bool, whether the catalogue has the price. tags: N lists of
    numbers below NUM_TAGS. budget: (U,) positive. likes: (U, NUM_TAGS) bool.
    """

    price: np.ndarray
    is_known: np.ndarray
    tags: Jagged
    budget: np.ndarray
    likes: np.ndarray

    @property
    def has_tag(self) -> np.ndarray:
        """(N, NUM_TAGS) bool."""
        found = np.zeros((len(self.price), NUM_TAGS), dtype=bool)
        found[self.tags.owners(), self.tags.values] = True
        return found

    def components(
        self, user: np.ndarray, item: np.ndarray, place: np.ndarray, discount: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is added to the logit, by name, each (R, C).

        ``user``: (R,) rows. ``item``, ``place``, ``discount``: (R, C).
        """
        far = np.abs(np.log(self.price[item]) - np.log(self.budget[user])[:, None])
        liked = np.zeros(item.shape)
        has_tag = self.has_tag
        for column in range(item.shape[1]):  # all at once would be R * C * NUM_TAGS
            tags = has_tag[item[:, column]]
            liked[:, column] = (tags & self.likes[user]).sum(axis=1) / tags.sum(axis=1)
        return {
            "price": BUDGET * (1 - far),
            "discount": DISCOUNT * discount,
            "tags": TAGS * liked,
            "position": POSITION * place,
        }


def draw_extras(num_items: int, num_users: int, rng: np.random.Generator) -> Extras:
    """All of them independent of everything else about items and users."""
    least, most = TAGS_AN_ITEM
    counts = rng.integers(least, most + 1, size=num_items)
    tags = rng.random((num_items, NUM_TAGS)).argsort(axis=1)
    is_own = np.arange(NUM_TAGS) < counts[:, None]
    likes = rng.random((num_users, NUM_TAGS)).argsort(axis=1) < LIKED_TAGS
    return Extras(
        price=MEAN_PRICE * np.exp(SPREAD * rng.standard_normal(num_items)),
        is_known=rng.random(num_items) >= MISSING_PRICES,
        tags=Jagged(tags[is_own], offsets_of(counts)),
        budget=MEAN_PRICE * np.exp(SPREAD * rng.standard_normal(num_users)),
        likes=likes,
    )


def draw_discounts(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Shares of the price, 0 for most impressions."""
    return np.where(rng.random(shape) < OFFERED, MOST_DISCOUNT * rng.random(shape), 0.0)
