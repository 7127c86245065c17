"""The whole simulated market: items, users, requests, searches; `write.py` writes it."""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.simulation.market.catalogue import DAY_S, START, Catalogue
from torchrec_mm.simulation.market.clicks import Users, draw_items, draw_users
from torchrec_mm.simulation.market.extras import Extras, draw_extras
from torchrec_mm.simulation.market.requests import (
    Clicks,
    Requests,
    all_clicks,
    simulate_requests,
    warm_up_clicks,
)
from torchrec_mm.simulation.market.searches import Searches, simulate_searches
from torchrec_mm.simulation.market.shop import Shop


@dataclass(frozen=True)
class Market:
    """A simulated market, everything by row numbers; ``test_start`` in seconds splits it.

    extras: further columns that matter for clicks, None in a market without.
    """

    catalogue: Catalogue
    users: Users
    user_ids: np.ndarray
    requests: Requests
    clicks: Clicks
    searches: Searches
    test_start: int
    extras: Extras | None = None


def simulate(
    catalogue: Catalogue,
    *,
    num_users: int,
    num_impressions: int,
    num_searches: int,
    days: int,
    test_days: int,
    seed: int,
    with_extras: bool = False,
) -> Market:
    """Simulate ``days`` days of which the last ``test_days`` are for testing.

    Formulas and constants: ``clicks`` (who clicks what), ``shop`` (what is shown), ``searches``,
    and, ``with_extras``, ``extras``.

    Raises:
        InputError: too few impressions for a request in training and one in the test days.
    """
    rng = np.random.default_rng([seed, 1])
    items = draw_items(catalogue, rng)
    users = draw_users(num_users, items, rng)
    shop = Shop(items, catalogue.created_at)
    extras, drawn = None, np.random.default_rng([seed, 3])
    if with_extras:
        extras = draw_extras(len(catalogue), num_users, drawn)
    requests = simulate_requests(
        shop,
        users,
        num_impressions=num_impressions,
        days=days,
        rng=rng,
        extras=None if extras is None else (extras, drawn),
    )
    test_start = START + (days - test_days) * DAY_S
    if not requests.timestamp[0] < test_start <= requests.timestamp[-1]:
        rule = "impressions must be enough for training and test requests"
        raise InputError(f"{rule}, got {num_impressions}")
    clicks = all_clicks(warm_up_clicks(shop, users, rng), requests)
    searches = simulate_searches(
        shop,
        users,
        catalogue,
        num_searches=num_searches,
        train_days=days - test_days,
        rng=np.random.default_rng([seed, 2]),
    )
    return Market(
        catalogue,
        users,
        rng.permutation(10 * num_users)[:num_users],
        requests,
        clicks,
        searches,
        test_start,
        extras,
    )
