"""AUC, GAUC, log loss: equal to their definitions, ties and all."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.metrics.auc import AucSum, auc
from torchrec_mm.metrics.gauc import Gauc, gauc
from torchrec_mm.metrics.log_loss import log_loss, normalized_entropy
from torchrec_mm.metrics.order import score_keys

SCORES = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.25 + 1e-12, 3.0, math.inf, -math.inf])
IMPRESSIONS = st.lists(st.tuples(st.sampled_from([-(2**60), 0, 1, 7]), st.booleans(), SCORES))


def auc_by_definition(labels, scores):
    """Every pair of a click and a non-click: 1, 1/2 or 0."""
    clicked = [s for y, s in zip(labels, scores, strict=True) if y]
    others = [s for y, s in zip(labels, scores, strict=True) if not y]
    if not clicked or not others:
        return None
    won = sum((c > o) + 0.5 * (c == o) for c in clicked for o in others)
    return won / (len(clicked) * len(others))


def gauc_by_definition(impressions):
    by_user = {}
    for user, label, score in impressions:
        by_user.setdefault(user, []).append((label, score))
    terms = [
        (len(rows), value)
        for rows in by_user.values()
        if (value := auc_by_definition(*zip(*rows, strict=True))) is not None
    ]
    weight = sum(n for n, _ in terms)
    mean = sum(n * value for n, value in terms) / weight if weight else None
    return mean, len(by_user), len(terms), len(impressions)


def columns(impressions):
    users, labels, scores = zip(*impressions, strict=True) if impressions else ((), (), ())
    return np.array(users, np.int64), np.array(labels, np.int8), np.array(scores, np.float64)


@settings(max_examples=300, deadline=None)
@given(IMPRESSIONS)
def test_auc_is_the_share_of_pairs_ranked_right_ties_half(impressions):
    _, labels, scores = columns(impressions)
    expected = auc_by_definition(labels, scores)
    found = auc(labels, scores)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-15)


@settings(max_examples=300, deadline=None)
@given(IMPRESSIONS)
def test_gauc_is_the_impression_weighted_mean_over_users_with_both_labels(impressions):
    mean, users, gauc_users, count = gauc_by_definition(impressions)
    found = gauc(*columns(impressions))
    assert (found.users, found.gauc_users, found.impressions) == (users, gauc_users, count)
    if mean is None:
        assert math.isnan(found.gauc)
    else:
        assert found.gauc == pytest.approx(mean, abs=1e-14)


def test_gauc_by_hand():
    users = np.array([1, 2, 1, 2, 1, 3])
    labels = np.array([1, 1, 0, 0, 0, 1])
    scores = np.array([0.5, 0.1, 0.5, 0.9, 0.2, 0.7])
    # user 1: one tie and one win of two pairs = .75, weight 3; user 2: 0, weight 2; user 3 left out
    assert gauc(users, labels, scores) == Gauc(0.75 * 3 / 5, users=3, gauc_users=2, impressions=6)


def test_the_order_of_impressions_changes_nothing():
    generator = np.random.default_rng(0)
    users = generator.integers(0, 50, 2000)
    labels = generator.integers(0, 2, 2000)
    scores = generator.integers(0, 9, 2000) / 9
    shuffled = generator.permutation(2000)
    assert gauc(users, labels, scores) == gauc(users[shuffled], labels[shuffled], scores[shuffled])
    assert auc(labels, scores) == auc(labels[shuffled], scores[shuffled])


def test_all_scores_equal_is_one_half():
    assert auc(np.array([0, 1, 1]), np.zeros(3)) == 0.5
    assert gauc(np.ones(3, np.int64), np.array([0, 1, 1]), np.zeros(3)).gauc == 0.5


def test_arguments_are_left_as_they_were():
    users, labels, scores = np.array([2, 1, 2]), np.array([1, 0, 0]), np.array([0.3, 0.1, 0.2])
    gauc(users, labels, scores)
    auc(labels, scores)
    log_loss(labels, scores)
    assert users.tolist() == [2, 1, 2]
    assert labels.tolist() == [1, 0, 0]
    assert scores.tolist() == [0.3, 0.1, 0.2]


@pytest.mark.parametrize(
    ("labels", "scores", "complaint"),
    [
        ([0, 2], [0.1, 0.2], "labels must be 0 or 1, got 2 at 1"),
        ([0, 1], [0.1, math.nan], "scores must not be NaN, got NaN at 1"),
        ([0, 1], [0.1], r"must be \(N,\), got \(2,\) and \(1,\)"),
        ([[0, 1]], [[0.1, 0.2]], r"must be \(N,\)"),
    ],
)
@pytest.mark.parametrize("metric", [auc, log_loss, lambda y, s: gauc(np.zeros(2), y, s)])
def test_bad_impressions_are_refused(metric, labels, scores, complaint):
    with pytest.raises(ValueError, match=complaint):
        metric(np.array(labels), np.array(scores))


def test_user_ids_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"user_ids must be \(N,\) = \(2,\), got \(1,\)"):
        gauc(np.zeros(1), np.array([0, 1]), np.array([0.1, 0.2]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(-30, 30)), min_size=1))
def test_log_loss_is_the_mean_negative_log_probability(impressions):
    def probability_of_truth(label, logit):
        return 1 / (1 + math.exp(-logit if label else logit))

    expected = -sum(math.log(probability_of_truth(y, x)) for y, x in impressions)
    labels, logits = zip(*impressions, strict=True)
    found = log_loss(np.array(labels), np.array(logits))
    assert found == pytest.approx(expected / len(impressions), rel=1e-9, abs=1e-12)


def test_log_loss_is_exact_where_the_probability_would_round_to_zero():
    assert log_loss(np.array([1, 0]), np.array([-1000.0, 1000.0], np.float32)) == 1000.0
    assert log_loss(np.array([1]), np.array([40.0])) == pytest.approx(math.exp(-40))


def test_normalized_entropy_of_the_base_rate_is_one():
    labels = np.array([1, 0, 0, 0])
    base_rate = np.full(4, math.log(1 / 3))
    assert normalized_entropy(labels, base_rate) == pytest.approx(1)
    assert normalized_entropy(labels, base_rate + 1) > 1
    assert normalized_entropy(labels, np.array([3.0, -3, -3, -3])) < 0.2


def test_what_is_undefined_is_nan():
    assert math.isnan(auc(np.ones(3), np.arange(3.0)))
    assert math.isnan(auc(np.array([]), np.array([])))
    assert math.isnan(log_loss(np.array([]), np.array([])))
    assert math.isnan(normalized_entropy(np.ones(3), np.zeros(3)))
    assert math.isnan(normalized_entropy(np.array([]), np.array([])))


@pytest.mark.parametrize("label", [0, 1])
def test_a_click_rate_of_none_or_all_has_no_entropy_and_no_warning(label):
    with np.errstate(all="raise"):
        assert math.isnan(normalized_entropy(np.full(3, label), np.zeros(3)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=1), st.lists(st.integers(0, 20)))
def test_auc_is_the_same_however_a_sorted_stream_is_cut(impressions, cuts):
    """Ties that go on in the next piece, or in the one after it, are halves too."""
    labels, scores = map(np.array, zip(*impressions, strict=True))
    keys = np.sort(score_keys(labels, scores))
    counted = AucSum()
    for piece in np.split(keys, sorted(cuts)):
        counted.add(piece)
    expected = auc_by_definition(labels, scores)
    assert math.isnan(counted.auc) if expected is None else counted.auc == pytest.approx(expected)


def test_more_pairs_than_32_bits_hold_are_counted():
    """1.2 M impressions make 3.6e11 pairs."""
    labels = np.tile([0, 1], 600_000)
    assert auc(labels, labels.astype(np.float32)) == 1.0


def test_gauc_takes_seconds_not_minutes_for_two_million_impressions():
    """About 1.5 s; the bound is loose because the machine may be shared."""
    generator = np.random.default_rng(0)
    users = generator.integers(0, 200_000, 2_300_000)
    labels = (generator.random(2_300_000) < 0.14).astype(np.int8)
    scores = generator.normal(size=2_300_000).astype(np.float32)
    began = time.process_time()
    gauc(users, labels, scores)
    assert time.process_time() - began < 10
