"""The simulated market: what its data promises, and what a model can find in it."""

import io

import numpy as np
import pytest
from PIL import Image

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.simulation.market import studio
from torchrec_mm.simulation.market.catalogue import DAY_S, START, Catalogue, draw_catalogue
from torchrec_mm.simulation.market.clicks import Items, Users, intercept, sigmoid, taste
from torchrec_mm.simulation.market.market import Market, simulate
from torchrec_mm.simulation.market.pictures import draw_pictures, encode_jpeg, render
from torchrec_mm.simulation.market.studio import Studio, snapshots
from torchrec_mm.simulation.market.words import (
    NUM_VALUES,
    VOCABULARY,
    attribute_queries,
    invented,
    title_queries,
)

SMALL = {"image_size": 16, "seed": 0, "processes": 1}
DAYS, TEST_DAYS = 6, 2


def simulated(catalogue: Catalogue, num_impressions: int) -> Market:
    return simulate(
        catalogue,
        num_users=300,
        num_impressions=num_impressions,
        num_searches=2_000,
        days=DAYS,
        test_days=TEST_DAYS,
        seed=3,
    )


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated(draw_catalogue(num_items=1500, days=DAYS, seed=3), 30_000)


@pytest.fixture(scope="module")
def impressions(market):
    """User, time, item and label of every impression."""
    requests = market.requests
    request = requests.request
    return requests.user[request], requests.timestamp[request], requests.item, requests.label


def test_exactly_the_wanted_impressions_are_simulated(market):
    assert market.requests.lengths.sum() == len(market.requests.item) == 30_000
    assert market.requests.lengths.max() <= 14


def test_no_item_is_shown_clicked_or_bought_before_it_is_born(market, impressions):
    born = market.catalogue.created_at
    _, time, item, _ = impressions
    assert (born[item] <= time).all()
    assert (born[market.clicks.item] <= market.clicks.time).all()
    searches = market.searches
    assert (born[searches.purchased] <= searches.timestamp).all()
    assert (born[searches.clicked] <= np.repeat(searches.timestamp, searches.num_clicked)).all()


def test_a_request_shows_every_item_once(market):
    pairs = np.stack([market.requests.request, market.requests.item])
    assert np.unique(pairs, axis=1).shape == pairs.shape


def test_clicks_are_the_warm_up_and_the_clicked_impressions(market, impressions):
    user, time, item, label = impressions
    clicks = market.clicks
    during = clicks.time >= START
    expected = sorted(zip(user[label == 1], time[label == 1], item[label == 1], strict=True))
    found = zip(clicks.user[during], clicks.time[during], clicks.item[during], strict=True)
    assert sorted(found) == expected
    assert (np.bincount(clicks.user[~during]) >= 5).all(), "every user has a past"


def test_searches_lie_in_the_training_days(market):
    assert market.test_start == START + (DAYS - TEST_DAYS) * DAY_S
    assert market.searches.timestamp.max() < market.test_start
    assert market.requests.timestamp.max() >= market.test_start


def test_searches_do_not_depend_on_what_was_clicked(market):
    """Another number of impressions changes every label and no search."""
    other = simulated(market.catalogue, 20_000)
    assert other.searches.texts == market.searches.texts
    assert (other.searches.purchased == market.searches.purchased).all()


def test_the_seed_decides_who_comes_and_what_is_shown_and_searched():
    catalogue = draw_catalogue(num_items=200, days=DAYS, seed=0)
    days = {"days": DAYS, "test_days": TEST_DAYS}
    sizes = {"num_users": 20, "num_impressions": 500, "num_searches": 50}
    one, again, other = (simulate(catalogue, **sizes, **days, seed=seed) for seed in (1, 1, 2))
    columns = ("requests", "user"), ("requests", "item"), ("searches", "user")
    for part, column in (*columns, ("searches", "has_photo")):
        drawn = [getattr(getattr(each, part), column).tolist() for each in (one, again, other)]
        assert drawn[0] == drawn[1] != drawn[2]


def test_lookalikes_share_attributes_with_what_was_bought_but_not_all(market):
    searches, attributes = market.searches, market.catalogue.attributes
    bought = attributes[np.repeat(searches.purchased, searches.num_clicked)]
    shared = (attributes[searches.clicked] == bought).sum(axis=1)
    assert shared.min() >= 2
    assert shared.max() < attributes.shape[1]
    assert searches.num_clicked.min() == 0
    assert 1 < searches.num_clicked.mean() < 3
    assert searches.num_clicked.max() == 4


def test_every_search_has_a_text_or_a_photo_and_most_have_both(market):
    has_text = np.array([text is not None for text in market.searches.texts])
    has_photo = market.searches.has_photo
    assert (has_text | has_photo).all()
    assert 0.5 < (has_text & has_photo).mean() < 0.7


def test_some_items_lack_the_title_some_the_picture_none_both(market):
    no_title = np.array([title is None for title in market.catalogue.titles])
    no_picture = ~market.catalogue.has_picture
    assert no_title.sum() == no_picture.sum() == 45
    assert not (no_title & no_picture).any()


def test_a_noticeable_share_of_test_impressions_is_of_unseen_and_young_items(market, impressions):
    _, time, item, _ = impressions
    test = time >= market.test_start
    seen = np.bincount(item[~test], minlength=len(market.catalogue)) > 0
    young = time - market.catalogue.created_at[item] < DAY_S
    assert 0.03 < (~seen[item[test]]).mean() < 0.2
    assert 0.03 < young[test].mean() < 0.2


def test_every_part_of_the_click_rule_matters(market, impressions):
    user, _, _, label = impressions
    ceilings = market.requests.ceilings().items()
    reach = {name: gauc(user, label, part).gauc for name, part in ceilings}
    assert 0.15 < label.mean() < 0.25
    assert 0.74 < reach["oracle"] < 0.82
    assert 0.62 < reach["quality+collaborative"] < 0.72
    assert 0.64 < reach["taste"] < 0.74
    assert reach["oracle"] > reach["quality+taste"] + 0.01 > reach["taste"] + 0.03


def test_what_is_shown_first_is_clicked_most(market, impressions):
    lengths = market.requests.lengths
    place = np.arange(len(impressions[0])) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    label = impressions[3]
    assert label[place < 3].mean() > label[place >= 9].mean()


def test_mornings_see_more_clicks_and_evenings_more_visits(market, impressions):
    hour, visit = (time % DAY_S // 3600 for time in (impressions[1], market.requests.timestamp))
    parts = market.requests.parts
    rest = parts["oracle"] - parts["quality"] - parts["collaborative"] - parts["taste"]
    assert rest[(hour >= 3) & (hour < 9)].mean() > rest[(hour >= 15) & (hour < 21)].mean() + 0.2
    assert ((visit >= 17) & (visit < 23)).sum() > 1.5 * (visit < 6).sum()


def test_what_is_shown_often_is_a_little_better(market):
    quality, item = market.requests.parts["quality"], market.requests.item
    items, first, times = np.unique(item, return_index=True, return_counts=True)
    old = market.catalogue.created_at[items] < START
    assert 0.1 < np.corrcoef(quality[first][old], np.log(times[old]))[0, 1] < 0.6


def test_past_clicks_tell_a_users_taste(market, impressions):
    """Attributes shared with the warm-up's clicks rank test impressions better than chance."""
    user, time, item, label = impressions
    attributes, clicks = market.catalogue.attributes, market.clicks
    past = clicks.time < START
    most_alike = np.array(
        [
            (attributes[clicks.item[past & (clicks.user == one)]][:, None] == attributes[None, of])
            .sum(axis=2, dtype=float)
            .__pow__(3)
            .mean(axis=0)[0]
            for one, of in zip(user[-3000:], item[-3000:, None], strict=True)
        ]
    )
    assert auc(label[-3000:], most_alike) > 0.58


def test_taste_is_the_squared_share_of_the_best_interest():
    users = Users(
        wanted=np.array([[[1, 1], [2, 2], [0, 0]]]),
        weight=np.array([[[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]]]),
        strength=np.array([[1.0, 0.8, 0.0]]),
        factors=np.zeros((1, 3)),
        activity=np.ones(1),
        age_band=np.zeros(1, dtype=np.int64),
    )
    combinations = np.array([[1, 1], [1, 2], [2, 2], [0, 0], [3, 1]])
    items = Items(combinations, np.zeros(5), np.zeros((5, 3)), np.ones(5))
    found = taste(users, items, np.array([0]), np.arange(5)[None])
    assert found[0].tolist() == pytest.approx([1.0, 0.8 * 0.25, 0.8, 0.0, 0.75**2])


def test_the_intercept_gives_the_wanted_click_rate():
    logits = np.random.default_rng(0).normal(size=1000) * 3
    assert sigmoid(intercept(logits, 0.13) + logits).mean() == pytest.approx(0.13)


def test_the_same_item_looks_different_each_time_and_the_same_with_the_same_seed():
    attributes = np.ones((2, len(NUM_VALUES)), dtype=np.int64)
    first, second = draw_pictures(attributes, 32, [0])
    assert first != second
    assert draw_pictures(attributes, 32, [0]) == [first, second]
    assert Image.open(io.BytesIO(first)).size == (32, 32)


def test_a_query_photo_is_not_the_shops_picture_and_parts_differ():
    catalogue, rows = draw_catalogue(num_items=100, days=DAYS, seed=0), np.arange(4)
    catalogue.has_picture[rows] = True
    with Studio(catalogue, **SMALL, tick=lambda done: None) as photographer:
        shop = photographer.item_pictures(rows, 0)
        photos = [photographer.query_photos(rows, np.ones(4, dtype=bool), n) for n in (0, 1)]
    pictures = [*shop, *photos[0], *photos[1]]
    assert len(set(pictures)) == len(pictures)


def test_every_other_snapshot_of_a_given_picture_is_mirrored():
    halves = np.repeat([0, 255], 20 * 20).reshape(2, 20, 20).transpose(1, 0, 2).reshape(20, 40)
    dark_left = encode_jpeg(np.stack([halves] * 3, axis=2).astype(np.uint8))
    photos = [np.asarray(Image.open(io.BytesIO(p))) for p in snapshots([dark_left] * 100, 16, [0])]
    mirrored = [photo[:, :4].mean() > photo[:, -4:].mean() for photo in photos]
    assert 30 < sum(mirrored) < 70


def test_photos_of_one_item_all_differ_however_they_are_cut_into_chunks(monkeypatch):
    monkeypatch.setattr(studio, "CHUNK", 2)
    catalogue = draw_catalogue(num_items=100, days=DAYS, seed=0)
    with Studio(catalogue, **SMALL, tick=lambda done: None) as photographer:
        photos = photographer.query_photos(np.zeros(5, dtype=int), np.ones(5, dtype=bool), 0)
    assert len(set(photos)) == 5


@pytest.mark.parametrize("attribute", range(len(NUM_VALUES)))
def test_every_attribute_value_shows_in_the_picture(attribute):
    values = np.zeros((NUM_VALUES[attribute], len(NUM_VALUES)), dtype=np.int64)
    values[:, attribute] = np.arange(NUM_VALUES[attribute])
    pixels = [render(row[None], 48, np.random.default_rng(5))[0].astype(int) for row in values]
    for place, one in enumerate(pixels):
        for other in pixels[:place]:
            assert np.abs(one - other).max() > 15


def test_every_word_means_one_value():
    words = [word for attribute in VOCABULARY for names in attribute for word in names]
    assert len(set(words)) == len(words)
    assert len({invented(number) for number in range(1728)}) == 1728


def test_a_query_names_at_least_two_attributes_of_what_is_wanted():
    rng = np.random.default_rng(0)
    attributes = np.stack([rng.integers(n, size=50) for n in NUM_VALUES], axis=1)
    for row, text in zip(attributes, attribute_queries(attributes, rng), strict=True):
        named = [a for a, v in enumerate(row) if any(name in text for name in VOCABULARY[a][v])]
        assert len(named) >= 2


def test_a_query_from_a_title_uses_its_words_in_order():
    rng = np.random.default_rng(0)
    for text in title_queries(["Nike Men Red Shoe"] * 20, rng):
        words = [word for word in ["nike", "men", "red", "shoe"] if word in text.split()]
        assert words
        assert text.endswith(" ".join(words))
