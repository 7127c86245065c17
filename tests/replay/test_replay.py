"""A replay: what is scored by which vectors, when, and what it comes to."""

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.runs import train_ranker
from tests.helpers.small_market import DAY_S, ITEM_IDS, WITHOUT_VECTOR
from tests.serving.served import parsed, predicted, table_of
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.replay.arrivals import Arrivals
from torchrec_mm.replay.measure import SLICES, measure
from torchrec_mm.replay.replay import Replayed, read_in_order, replay, windows
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.scorer import Scorer

BEGIN_S = 10 * DAY_S  # of requests/test, one a second; item n was born on day n, each fifth never
BORN = {number: ITEM_IDS[number] for number in range(4, 24) if number % 5}


@pytest.fixture
def arrivals(market, tmp_path):
    """Makes them: by a delay in seconds, closed in the end."""
    made = []

    def of(delay_s: float | None) -> Arrivals:
        vectors, items = ItemVectors.open(market.vectors), read_items(market.data)
        index = tmp_path / f"index{len(made)}"
        made.append(Arrivals(index, vectors, items, begin_s=BEGIN_S, delay_s=delay_s))
        return made[-1]

    yield of
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def ranker(market, tmp_path_factory):
    return train_ranker(market, tmp_path_factory.mktemp("ranker") / "run", "simtier")


def there(arrivals: Arrivals) -> set[int]:
    """Numbers of the dated items that have a vector."""
    return {n for n, item in BORN.items() if arrivals.vectors.rows(np.array([item]))[0] >= 0}


def test_a_vector_comes_its_delay_after_its_item_and_not_a_second_earlier(arrivals):
    coming = arrivals(DAY_S + 5)
    assert there(coming) == {4, 6, 7, 8}
    assert coming.until(BEGIN_S + 4) == 0 and there(coming) == {4, 6, 7, 8}
    assert coming.until(BEGIN_S + 5) == 1 and there(coming) == {4, 6, 7, 8, 9}
    assert coming.until(BEGIN_S + 100 * DAY_S) == len(BORN) - 5 and there(coming) == set(BORN)


def test_a_vector_that_came_is_that_of_its_item(arrivals, market):
    coming, whole = arrivals(3600.0), ItemVectors.open(market.vectors)
    coming.until(BEGIN_S + 100 * DAY_S)
    found, mask = coming.vectors.lookup(ITEM_IDS)
    wanted, known = whole.lookup(ITEM_IDS)
    assert (mask == known).all() and (found == wanted).all()


def test_items_born_later_never_get_one_where_none_ever_comes(arrivals):
    coming = arrivals(None)
    coming.until(BEGIN_S + 100 * DAY_S)
    assert there(coming) == {4, 6, 7, 8, 9}


def test_items_of_no_date_have_always_had_their_vector(arrivals):
    undated = np.array([ITEM_IDS[number] for number in range(5, 24, 5)])
    assert (arrivals(10**12).vectors.rows(undated) >= 0).all()


def test_a_replay_that_begins_without_a_vector_is_refused(market, tmp_path):
    vectors, items = ItemVectors.open(market.vectors), read_items(market.data)
    items.created_at[:] = BEGIN_S
    with pytest.raises(InputError, match="vectors must hold some that are there"):
        Arrivals(tmp_path / "index", vectors, items, begin_s=BEGIN_S, delay_s=1)


def test_windows_begin_at_multiples_of_their_length_and_hold_each_request_once():
    table = pa.table({"timestamp": pa.array([7, 9, 10, 31, 39], pa.int64())})
    found = [(begin, part["timestamp"].to_pylist()) for begin, part in windows(table, 10)]
    assert found == [(0, [7, 9]), (10, [10]), (30, [31, 39])]


def test_with_all_vectors_there_scores_are_those_of_predict(market, ranker, arrivals, tmp_path):
    coming = arrivals(0)
    coming.until(BEGIN_S + 100 * DAY_S)
    found = replayed(market, ranker, coming)
    requests = market.data / "requests" / "test"
    wanted = predicted(ranker, requests, tmp_path / "scores.parquet")
    assert 1 / (1 + np.exp(-found.logits)) == pytest.approx(wanted, abs=1e-6)
    table = read_in_order(requests, scorer_of(market, ranker, coming).encoder.columns)
    assert found.labels.tolist() == [label for row in table["labels"].to_pylist() for label in row]


def test_a_window_is_scored_by_what_had_come_when_it_began(market, ranker, arrivals):
    """Item 9 comes at second 2: the window of the first ten seconds does not have it."""
    coming = arrivals(DAY_S + 2)
    found = replayed(market, ranker, coming)
    scorer = scorer_of(market, ranker, arrivals(DAY_S + 2))
    table = table_of(scorer, market.data / "requests" / "test")
    early = scorer.logits(parsed(scorer, table.slice(0, 10)))
    assert (found.logits[: len(early)] == pytest.approx(early, abs=1e-6)) and 9 in there(coming)
    late = scorer.logits(parsed(scorer, table.slice(10)))
    assert not np.allclose(found.logits[len(early) :], late)


def test_what_learns_is_given_each_window_after_it_was_scored(market, ranker, arrivals):
    coming = arrivals(0)
    scorer = scorer_of(market, ranker, coming)
    seen: list = []

    def asked() -> Scorer:
        seen.append("scored")
        return scorer

    def learn(begin_s: int, window: pa.Table) -> None:
        seen.append((begin_s - BEGIN_S, len(window)))

    items = read_items(market.data)
    table = read_in_order(market.data / "requests" / "test", scorer.encoder.columns)
    replay(asked, table, items, coming, 10, learn)
    assert seen == ["scored", (0, 10), "scored", (10, 10), "scored", (20, 5)]


def test_ages_and_coverage_are_of_the_moment(market, ranker, arrivals):
    coming = arrivals(None)
    found = replayed(market, ranker, coming)
    scorer = scorer_of(market, ranker, coming)
    table = table_of(scorer, market.data / "requests" / "test")
    place = {int(item): number for number, item in enumerate(ITEM_IDS)}
    at = 0
    for second, shown in enumerate(table["candidate_item_ids"].to_pylist()):
        for item in shown:
            number = place[item]
            age = BEGIN_S + second - number * DAY_S if number % 5 else np.inf
            assert found.age_s[at] == age
            known = number % 5 == 0 or age >= second
            assert found.has_vector[at] == (known and item not in WITHOUT_VECTOR)
            at += 1
    assert at == len(found.age_s)


def test_figures_are_of_young_items_and_differ_from_the_last_replay():
    """Two users, each with a pair of young items and one of old ones, which is ranked rightly."""
    users = np.repeat([1, 2], 4)
    labels = np.tile([0, 1], 4).astype(np.int8)
    ages = np.tile([0.0, DAY_S - 1.0, DAY_S, np.inf], 2)

    def of(*logits: float) -> Replayed:
        young = np.array(logits, np.float32).reshape(2, 2)
        values = np.concatenate([young, np.tile(np.array([[0, 1]], np.float32), (2, 1))], axis=1)
        return Replayed(users, labels, values.ravel(), ages, np.tile([True, False], 4))

    rows = measure({"right": of(0, 1, 0, 1), "half": of(0, 1, 1, 0)}, 200)
    right, half = (row["slices"][SLICES[0]] for row in rows)
    assert (right["impressions"], right["coverage"], right["gauc"]["value"]) == (4, 0.5, 1.0)
    assert half["gauc"]["value"] == 0.5 and half["against"]["gauc"]["value"] == 0.0
    assert right["against"]["gauc"]["value"] == 0.5
    assert right["against"]["gauc"]["low"] == 0.0  # a resample of the first user alone
    assert rows[0]["slices"][SLICES[1]]["impressions"] == 8


def test_a_slice_without_impressions_has_no_figures():
    users, labels = np.array([1, 1]), np.array([0, 1], np.int8)
    logits, old = np.array([0, 1], np.float32), np.full(2, np.inf)
    (row,) = measure({"one": Replayed(users, labels, logits, old, np.ones(2, bool))}, 100)
    found = row["slices"][SLICES[0]]
    assert (found["gauc"], found["auc"], found["coverage"], found["impressions"]) == (
        *[None] * 3,
        0,
    )


def scorer_of(market, ranker, arrivals: Arrivals) -> Scorer:
    trained = TrainedRun.open(ranker, "latest")
    return Scorer.open(trained, market.data / "items", lambda: arrivals.vectors)


def replayed(market, ranker, arrivals: Arrivals) -> Replayed:
    """The test split in windows of ten seconds."""
    scorer = scorer_of(market, ranker, arrivals)
    table = read_in_order(market.data / "requests" / "test", scorer.encoder.columns)
    return replay(lambda: scorer, table, read_items(market.data), arrivals, 10)
