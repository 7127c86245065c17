"""Simulated requests: who came when, what was shown, what was clicked."""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.simulation.market.catalogue import DAY_S, START
from torchrec_mm.simulation.market.clicks import (
    HOUR,
    NOISE,
    PLACE,
    Users,
    components,
    intercept,
    sigmoid,
)
from torchrec_mm.simulation.market.extras import Extras, draw_discounts
from torchrec_mm.simulation.market.shop import Shop, shown

CANDIDATES = (6, 14)  # fewest and most a request, ten on average
TARGETING = 2.5  # how well the shop guesses taste when it chooses what to show
WARM_UP_DAYS = 30
WARM_UP_CLICKS = (5, 40)  # a user, before the first simulated day
WARM_UP_EAGERNESS = 6.0


@dataclass(frozen=True)
class Requests:
    """R requests in order of time with M impressions end to end.

    user, timestamp: (R,) int64 (user as a row). lengths: (R,) impressions of each request.
    item: (M,) int64 item rows. label: (M,) int8. parts: components of the logit, each (M,);
    "oracle" is the logit without noise, the best any model could know. discount: (M,) of
    impressions, in a market that has such columns.
    """

    user: np.ndarray
    timestamp: np.ndarray
    lengths: np.ndarray
    item: np.ndarray
    label: np.ndarray
    parts: dict[str, np.ndarray]
    discount: np.ndarray | None = None

    @property
    def place(self) -> np.ndarray:
        """(M,) int64, place of each impression in its request, from 0."""
        return np.arange(len(self.item)) - np.repeat(
            np.cumsum(self.lengths) - self.lengths, self.lengths
        )

    @property
    def request(self) -> np.ndarray:
        """(M,) int64, the request of each impression."""
        return np.repeat(np.arange(len(self.user)), self.lengths)

    def ceilings(self) -> dict[str, np.ndarray]:
        """Scores (M,) that know some parts of the rule: the most such a model can reach."""
        quality, collaborative = self.parts["quality"], self.parts["collaborative"]
        return self.parts | {
            "quality+collaborative": quality + collaborative,
            "quality+taste": quality + self.parts["taste"],
        }


@dataclass(frozen=True)
class Clicks:
    """C clicks: user rows, seconds, item rows; each (C,) int64."""

    user: np.ndarray
    time: np.ndarray
    item: np.ndarray


def simulate_requests(
    shop: Shop,
    users: Users,
    *,
    num_impressions: int,
    days: int,
    rng: np.random.Generator,
    extras: tuple[Extras, np.random.Generator] | None = None,
) -> Requests:
    """Simulate about ``num_impressions`` (fewer only if the catalogue is tiny) over ``days``.

    ``extras``: further columns that matter, and what to draw those of impressions from.
    """
    wanted = _request_sizes(num_impressions, rng)
    user = rng.choice(len(users.activity), size=len(wanted), p=users.activity)
    timestamp = visit_times(len(wanted), days, rng)
    item, real = shown(shop, users, user, timestamp, CANDIDATES[1], TARGETING, rng)
    real &= real.cumsum(axis=1) <= wanted[:, None]
    parts = components(users, shop.items, user, item)
    place = real.cumsum(axis=1) - 1
    discount = None
    if extras is not None:
        discount = draw_discounts(item.shape, extras[1])
        parts |= extras[0].components(user, item, place, discount)
    hour = timestamp % DAY_S / DAY_S
    known = sum(parts.values()) + PLACE * place + HOUR * np.sin(2 * np.pi * hour)[:, None]
    logit = known + NOISE * rng.standard_normal(known.shape)
    logit = logit + intercept(logit[real])
    label = rng.random(logit.shape) < sigmoid(logit)
    return Requests(
        user=user,
        timestamp=timestamp,
        lengths=real.sum(axis=1),
        item=item[real],
        label=label[real].astype(np.int8),
        parts={name: part[real] for name, part in (parts | {"oracle": known}).items()},
        discount=None if discount is None else discount[real],
    )


def warm_up_clicks(shop: Shop, users: Users, rng: np.random.Generator) -> Clicks:
    """Clicks before the first simulated day: items by popularity and, strongly, by taste."""
    num_clicks = rng.integers(WARM_UP_CLICKS[0], WARM_UP_CLICKS[1] + 1, size=len(users.activity))
    user = np.repeat(np.arange(len(num_clicks)), num_clicks)
    time = START - rng.integers(1, WARM_UP_DAYS * DAY_S, size=len(user))
    item, _ = shown(shop, users, user, time, 1, WARM_UP_EAGERNESS, rng)
    return Clicks(user, time, item[:, 0])


def all_clicks(warm_up: Clicks, requests: Requests) -> Clicks:
    """The warm-up's clicks and those on requests."""
    clicked = requests.label == 1
    request = requests.request[clicked]
    return Clicks(
        np.concatenate([warm_up.user, requests.user[request]]),
        np.concatenate([warm_up.time, requests.timestamp[request]]),
        np.concatenate([warm_up.item, requests.item[clicked]]),
    )


def visit_times(count: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) ascending seconds; evenings are busier than nights."""
    hours = 1 + 0.8 * np.sin(2 * np.pi * (np.arange(24) - 14) / 24)
    hour = rng.choice(24, size=count, p=hours / hours.sum())
    day = rng.integers(days, size=count)
    return np.sort(START + day * DAY_S + hour * 3600 + rng.integers(3600, size=count))


def _request_sizes(num_impressions: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates of each request; the sum is exactly ``num_impressions``."""
    least, most = CANDIDATES
    sizes = rng.integers(least, most + 1, size=num_impressions // least + 1)
    ends = np.cumsum(sizes)
    last = np.searchsorted(ends, num_impressions)
    sizes[last] -= ends[last] - num_impressions
    return sizes[: last + 1]
