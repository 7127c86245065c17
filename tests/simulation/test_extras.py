"""Further columns of the simulated market matter for clicks, and a market without is as it was."""

import numpy as np
import pytest

from torchrec_mm.metrics.auc import auc
from torchrec_mm.simulation.market.catalogue import draw_catalogue
from torchrec_mm.simulation.market.extras import (
    BUDGET,
    DISCOUNT,
    MOST_DISCOUNT,
    POSITION,
    TAGS,
    draw_extras,
)
from torchrec_mm.simulation.market.market import Market, simulate

PARTS = ("price", "discount", "tags", "position")


def simulated(with_extras: bool) -> Market:
    return simulate(
        draw_catalogue(num_items=400, days=4, seed=3),
        num_users=100,
        num_impressions=8_000,
        num_searches=20,
        days=4,
        test_days=1,
        seed=3,
        with_extras=with_extras,
    )


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated(with_extras=True)


def test_parts_of_the_rule_can_be_counted_by_hand():
    extras = draw_extras(50, 20, np.random.default_rng(0))
    user, item = np.array([3]), np.array([[7, 8]])
    parts = extras.components(user, item, np.array([[0, 4]]), np.array([[0.0, 0.5]]))
    for column, row in enumerate(item[0]):
        tags = extras.tags.take(np.array([row]))[0].values.tolist()
        liked = sum(bool(extras.likes[3, tag]) for tag in tags) / len(tags)
        assert parts["tags"][0, column] == pytest.approx(TAGS * liked)
        far = abs(np.log(extras.price[row] / extras.budget[3]))
        assert parts["price"][0, column] == pytest.approx(BUDGET * (1 - far))
    assert parts["discount"].tolist() == [[0.0, DISCOUNT * 0.5]]
    assert parts["position"].tolist() == [[0.0, POSITION * 4]]


@pytest.mark.parametrize("part", PARTS)
def test_each_column_orders_impressions_better_than_chance(market, part):
    assert auc(market.requests.label, market.requests.parts[part]) > 0.52


def test_what_the_rule_knows_is_more_than_in_a_market_without(market):
    without = simulated(with_extras=False).requests
    assert without.discount is None and not {*PARTS} & {*without.parts}
    of_few = auc(without.label, without.parts["oracle"])
    assert auc(market.requests.label, market.requests.parts["oracle"]) > of_few + 0.02


def test_only_clicks_are_others_than_in_a_market_without(market):
    without = simulated(with_extras=False)
    for name in ("user", "timestamp", "lengths", "item"):
        assert np.array_equal(getattr(market.requests, name), getattr(without.requests, name))
    assert np.array_equal(market.user_ids, without.user_ids)


def test_places_begin_anew_in_every_request_and_discounts_are_shares(market):
    requests = market.requests
    assert requests.place.tolist() == [at for n in requests.lengths for at in range(n)]
    assert 0 <= requests.discount.min() < requests.discount.max() <= MOST_DISCOUNT
    assert 0.25 < (requests.discount > 0).mean() < 0.35
