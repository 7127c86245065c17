"""Slices of the test set, stated by hand."""

import json

import numpy as np

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.slices import DAY_S, age_slices, frequency_slices, sliced


def members(masks):
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def test_each_impression_is_in_the_slice_of_its_items_training_frequency():
    frequency = np.array([0, 1, 5, 6, 20, 21, 100, 101, 10**9])
    assert members(frequency_slices(frequency)) == {
        "item_frequency/0": [0],
        "item_frequency/1-5": [1, 2],
        "item_frequency/6-20": [3, 4],
        "item_frequency/21-100": [5, 6],
        "item_frequency/>100": [7, 8],
    }


def test_age_is_request_time_minus_creation_where_both_are_known():
    now = 10 * DAY_S
    created_at = np.array([now - DAY_S, now - DAY_S + 1, now + 5, 0, np.iinfo(np.int64).min])
    known = np.array([True, True, True, True, False])
    assert members(age_slices(np.full(5, now), created_at, known)) == {
        "item_age/<24h": [1, 2],
        "item_age/>=24h": [0, 3],
    }


def test_without_times_there_are_no_age_slices():
    assert age_slices(np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, bool)) == {}


def test_a_slice_is_scored_on_its_own_impressions_only():
    generator = np.random.default_rng(0)
    users, labels = generator.integers(0, 9, 300), generator.integers(0, 2, 300)
    scores, mask = generator.normal(size=300), generator.random(300) < 0.4
    expected = {
        "auc": auc(labels[mask], scores[mask]),
        "gauc": gauc(users[mask], labels[mask], scores[mask]).gauc,
        "impressions": int(mask.sum()),
    }
    assert sliced({"some": mask}, users, labels, scores) == {"some": expected}


def test_what_is_undefined_in_a_slice_is_null_in_json():
    masks = {"one label": np.array([True, True, False]), "empty": np.zeros(3, bool)}
    found = sliced(masks, np.array([1, 1, 1]), np.array([1, 1, 0]), np.array([0.1, 0.2, 0.3]))
    assert found["one label"] == {"auc": None, "gauc": None, "impressions": 2}
    assert found["empty"] == {"auc": None, "gauc": None, "impressions": 0}
    json.dumps(found, allow_nan=False)
