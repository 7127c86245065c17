"""The bootstrap over users: each resample's figures are those of the users it drew."""

import math

import numpy as np
import pytest

from torchrec_mm.metrics import bootstrap
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.bootstrap import FIGURES, Interval, resampled_figures
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.log_loss import log_loss


def impressions(seed: int, users: int = 12, each: int = 9):
    """User ids, labels and logits with many ties; some users click never."""
    generator = np.random.default_rng(seed)
    user_ids = generator.choice(users, users * each) * 1000 - 5
    labels = generator.random(users * each) < 0.1 * (user_ids % 7)
    logits = (generator.normal(size=users * each) + labels).round(1).astype(np.float32)
    return user_ids, labels.astype(np.int8), logits


def drawn_users(user_ids, resamples, seed):
    """The users of each resample, by a loop."""
    known = sorted(set(user_ids.tolist()))
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield [known[place] for place in generator.integers(0, len(known), len(known))]


def by_definition(user_ids, labels, logits, users):
    """The figures of some users, with repeats, each repeat a user of its own."""
    rows, owners = [], []
    for number, user in enumerate(users):
        of_user = np.flatnonzero(user_ids == user).tolist()
        rows += of_user
        owners += [number] * len(of_user)
    labels, logits = labels[rows], logits[rows]
    predicted = sum(1 / (1 + math.exp(-logit)) for logit in logits.tolist())
    return {
        "auc": auc(labels, logits),
        "gauc": gauc(np.array(owners), labels, logits).gauc,
        "log_loss": log_loss(labels, logits),
        "calibration": predicted / labels.sum(),
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_resample_is_measured_by_the_definitions(seed, monkeypatch):
    monkeypatch.setattr(bootstrap, "AT_ONCE", 300)  # some blocks of resamples
    data = impressions(seed)
    found = resampled_figures(*data, resamples=20, seed=seed)
    every = sorted(set(data[0].tolist()))
    for place, users in enumerate([every, *drawn_users(data[0], 20, seed)]):
        expected = by_definition(*data, users)
        got = {name: found[name][place] for name in FIGURES}
        assert got == pytest.approx(expected, abs=1e-12)


def test_the_order_of_impressions_does_not_matter():
    data = impressions(0)
    order = np.random.default_rng(1).permutation(len(data[0]))
    one = resampled_figures(*data, resamples=5)
    other = resampled_figures(*(each[order] for each in data), resamples=5)
    for name in FIGURES:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def test_a_figure_that_no_resample_has_is_nan():
    found = resampled_figures(np.arange(3), np.ones(3), np.arange(3.0), resamples=2)
    assert np.isnan(found["auc"]).all() and np.isnan(found["gauc"]).all()
    assert np.isfinite(found["log_loss"]).all()
    empty = resampled_figures(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), resamples=2)
    assert all(np.isnan(empty[name]).all() for name in FIGURES)


def test_an_interval_holds_19_of_20_resamples_around_the_figure_itself():
    figures = np.array([0.5, *np.linspace(0, 1, 1001)])
    interval = Interval.of(figures)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.025, 0.975))
    assert interval.p is None


def test_a_difference_is_paired_by_resample():
    """The same users' luck lifts both: what is left is the gain alone."""
    luck = np.random.default_rng(0).normal(size=1000)
    gain = Interval.of_difference(luck + 0.1, luck)
    assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))
    assert gain.p == pytest.approx(2 / 1000)
    assert not gain.is_tie


def test_a_ranker_compared_with_itself_is_a_tie():
    luck = np.random.default_rng(0).normal(size=101)
    tie = Interval.of_difference(luck, luck)
    assert tie.is_tie and tie.p == 1


def test_p_counts_the_resamples_on_the_rarer_side():
    differences = np.array([1.0, *[1.0] * 95, *[-1.0] * 4])
    assert Interval.of_difference(differences, np.zeros(100)).p == pytest.approx(2 * 5 / 100)
