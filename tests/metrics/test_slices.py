"""Slices of the test set, stated by hand."""

import json

import numpy as np

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.impression_files import ImpressionFiles
from torchrec_mm.metrics.slices import (
    AGE_SLICES,
    DAY_S,
    SLICES,
    age_slices,
    frequency_slices,
    measure_slices,
)


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


def write(folder, users, labels, logits, **masks):
    files = ImpressionFiles(folder, 0, SLICES)
    files.add(users, labels, logits, masks)
    files.flush()
    return measure_slices(folder)


def test_a_slice_is_scored_on_its_own_impressions_only(tmp_path):
    generator = np.random.default_rng(0)
    users, labels = generator.integers(0, 9, 300), generator.integers(0, 2, 300)
    logits = generator.normal(size=300).astype(np.float32)
    mask = generator.random(300) < 0.4
    found = write(tmp_path, users, labels, logits, **{"item_frequency/0": mask})
    assert found["slices"]["item_frequency/0"] == {
        "auc": auc(labels[mask], logits[mask]),
        "gauc": gauc(users[mask], labels[mask], logits[mask]).gauc,
        "impressions": int(mask.sum()),
    }
    assert (found["auc"], found["impressions"]) == (auc(labels, logits), 300)


def test_each_impression_has_a_place_among_the_names_of_slices():
    times = np.arange(2), np.arange(2), np.ones(2, bool)
    assert set(frequency_slices(np.arange(3)) | age_slices(*times)) == set(SLICES)


def test_slices_of_age_are_there_when_an_impression_has_both_times(tmp_path):
    one = np.array([1]), np.array([0]), np.zeros(1, np.float32)
    ages = {AGE_SLICES[0]: [1]}
    for name, masks, expected in (("no", {}, set()), ("yes", ages, set(AGE_SLICES))):
        (tmp_path / name).mkdir()
        found = write(tmp_path / name, *one, **masks)["slices"]
        assert set(found) & set(AGE_SLICES) == expected


def test_what_is_undefined_in_a_slice_is_null_in_json(tmp_path):
    one_label = {"item_frequency/0": np.array([True, True, False])}
    logits = np.array([0.1, 0.2, 0.3], np.float32)
    found = write(tmp_path, np.array([1, 1, 1]), np.array([1, 1, 0]), logits, **one_label)
    slices = found["slices"]
    assert slices["item_frequency/0"] == {"auc": None, "gauc": None, "impressions": 2}
    assert slices["item_frequency/1-5"] == {"auc": None, "gauc": None, "impressions": 0}
    json.dumps(found, allow_nan=False)
