"""Folds of requests: which one a request is of, and a batch without the requests of one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.ranking.small_ranker import Encoded, encode
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.folds import folds_of, without_fold
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.ranking.collators import collator_for_make

ROWS = np.arange(17)


@pytest.fixture(scope="module")
def encoded(market) -> Encoded:
    return encode(market)


@pytest.fixture
def collator(encoded) -> Collator:
    return collator_for_make(encoded.data.items, MappedVectors(encoded.vectors), 3, folds=3)


def seen(batch: RequestBatch) -> dict[int, list]:
    """By request, all that MAKE sees of it, with the vectors of its items."""
    cosine, requests = batch.search.cosine, {}
    candidates, behaviours = batch.candidate_offsets.tolist(), batch.behaviour_offsets.tolist()
    first_pair = 0
    for place, row in enumerate(batch.rows.tolist()):
        asked = slice(candidates[place], candidates[place + 1])
        past = slice(behaviours[place], behaviours[place + 1])
        pairs = (asked.stop - asked.start) * (past.stop - past.start)
        assert (batch.request[asked] == place).all()
        requests[row] = [
            batch.vectors[batch.candidates[asked]].tolist(),
            batch.vectors[batch.behaviours[past]].tolist(),
            batch.labels[asked].tolist(),
            None if batch.weights is None else batch.weights[asked].tolist(),
            cosine[first_pair : first_pair + pairs].tolist(),
        ]
        first_pair += pairs
    assert first_pair == len(cosine)
    return requests


def test_the_fold_of_a_request_is_its_own_whatever_is_beside_it():
    rows = np.arange(1000)
    shuffled = np.random.default_rng(0).permutation(rows)
    assert np.array_equal(folds_of(shuffled, 5), folds_of(rows, 5)[shuffled])
    assert folds_of(np.array([7]), 5) == folds_of(rows, 5)[7]


def test_folds_that_runs_on_disk_rely_on_stay():
    assert folds_of(np.arange(12), 2).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert folds_of(np.arange(12), 3).tolist() == [1, 0, 1, 1, 1, 0, 2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("folds", [2, 3, 8])
def test_folds_are_of_one_size_and_of_no_pattern(folds):
    of_all = folds_of(np.arange(24_000), folds)
    for some in (of_all, of_all[::2], of_all[::7], of_all[:3000]):
        shares = np.bincount(some, minlength=folds) / len(some)
        assert len(shares) == folds and np.abs(shares - 1 / folds).max() < 0.03


def test_requests_come_fold_after_fold(encoded, collator):
    share = encoded.arrays.take(ROWS)
    batch = collator(share, 1.0)
    folds = folds_of(batch.rows.numpy(), 3)
    assert sorted(batch.rows.tolist()) == ROWS.tolist() and (np.diff(folds) >= 0).all()
    assert seen(batch) == seen(replace(collator, folds=1)(share, 1.0))


@pytest.mark.parametrize("fold", [0, 1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_without_a_fold_a_batch_is_the_batch_of_the_others(fold, weighted, encoded, collator):
    arrays = encoded.arrays
    if weighted:
        arrays = replace(arrays, weights=np.arange(len(arrays.labels), dtype=np.float32))
    others = ROWS[folds_of(ROWS, 3) != fold]
    assert 0 < len(others) < len(ROWS)
    left = without_fold(collator(arrays.take(ROWS), 0.25), fold)
    wanted = replace(collator, folds=1)(arrays.take(others), 0.25)
    assert seen(left) == seen(wanted) and left.loss_weight == 0.25 and left.folds is None


def test_a_batch_may_hold_one_fold_alone(encoded, collator):
    fold = folds_of(ROWS, 3)[0]
    batch = collator(encoded.arrays.take(ROWS[folds_of(ROWS, 3) == fold]), 1.0)
    assert seen(without_fold(batch, fold)) == {}
    assert seen(without_fold(batch, (fold + 1) % 3)) == seen(batch)


def test_a_masked_batch_has_folds_without_impressions(encoded, collator):
    batch = collator(encoded.arrays.take(ROWS[:1]), 1.0, masked=True)
    assert batch.folds.candidates == (0, 0, 0, 0)
    for fold in range(3):
        assert len(without_fold(batch, fold).labels) == 0


def test_a_batch_moves_with_its_folds(encoded, collator):
    batch = collator(encoded.arrays.take(ROWS), 1.0)
    assert batch.to(torch.device("cpu")).folds == batch.folds is not None
