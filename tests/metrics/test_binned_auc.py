"""AUC from counts: the exact one up to the width of a bin, however the stream is cut."""

import math

import numpy as np
import pytest
import torch

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.binned_auc import BINS, LIMIT, BinnedAuc


def counted(labels, logits) -> BinnedAuc:
    figure = BinnedAuc()
    figure.add(torch.tensor(labels, dtype=torch.float32), torch.tensor(logits))
    return figure


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_exact_auc_where_scores_fall_into_bins_of_their_own(seed):
    rng = np.random.default_rng(seed)
    width = 2 * LIMIT / BINS
    logits = (rng.integers(-300, 300, 500) + 0.5) * width  # ties too
    labels = rng.integers(0, 2, 500)
    assert counted(labels, logits).value() == pytest.approx(auc(labels, logits), abs=1e-12)


def test_it_is_close_to_the_exact_auc_of_any_scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    logits = (rng.normal(size=5000) + labels).astype(np.float32)
    assert counted(labels, logits).value() == pytest.approx(auc(labels, logits), abs=1e-4)


def test_parts_of_the_stream_add_up():
    whole = counted([0, 1, 1, 0], [0.1, 0.2, -3.0, 1.0])
    parts = counted([0, 1], [0.1, 0.2])
    parts.counts += counted([1, 0], [-3.0, 1.0]).counts
    assert torch.equal(parts.counts, whole.counts)
    assert whole.value() == 0.25


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_counting_one_by_one_however_often_a_bin_is_hit(seed):
    rng = np.random.default_rng(seed)
    bins, labels = rng.integers(0, 9, 400), rng.integers(0, 2, 400)
    expected = torch.zeros(2, BINS, dtype=torch.int64)
    for label, place in zip(labels.tolist(), bins.tolist(), strict=True):
        expected[label, place] += 1
    figure = counted(labels, (bins + 0.5) * (2 * LIMIT / BINS) - LIMIT)
    assert torch.equal(figure.counts, expected) and figure.counts.dtype == torch.int64
    figure.add(torch.zeros(0), torch.zeros(0))
    assert torch.equal(figure.counts, expected)


def test_scores_beyond_the_limits_are_the_outermost():
    assert counted([0, 1], [-1e9, 1e9]).value() == 1
    assert counted([0, 1], [math.inf, -math.inf]).value() == 0
    assert counted([0, 1], [LIMIT + 1, LIMIT + 2]).value() == 0.5


def test_what_is_no_number_is_the_lowest_score():
    assert counted([0, 1], [math.nan, -LIMIT / 2]).value() == 1
    assert counted([0, 1], [-LIMIT / 2, math.nan]).value() == 0


@pytest.mark.parametrize("labels", [[], [1, 1], [0]])
def test_it_is_undefined_where_a_label_does_not_occur(labels):
    assert math.isnan(counted(labels, [0.5] * len(labels)).value())
