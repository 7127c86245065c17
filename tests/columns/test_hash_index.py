"""Hashing finds what binary search finds, whatever the ids look like."""

import numpy as np
import pytest

from torchrec_mm.columns import hash_index
from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.ids import IdIndex

SHAPES = {
    "counting": np.arange(-500, 500),
    "one": np.array([-7]),
    "high bits": np.arange(1000) << 50,
    "hashes": np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 3000),
    "extremes": np.array([-(2**63), -1, 0, 1, 2**63 - 1]),
    "none": np.array([], dtype=np.int64),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_known_ids_have_their_rows_and_unknown_ones_minus_one(name, block, monkeypatch):
    monkeypatch.setattr(hash_index, "BUILD_BLOCK", block)
    ids = np.unique(SHAPES[name])
    asked = np.concatenate([ids, ids[::-1], ids + 1, ids ^ (1 << 40), np.arange(-20, 20)])
    assert HashIndex(ids).rows(asked).tolist() == IdIndex(ids).rows(asked).tolist()


def test_ids_may_come_in_any_order_and_rows_are_where_they_came():
    ids = np.random.default_rng(0).permutation(1000) * 3
    assert HashIndex(ids).rows(ids[::-1]).tolist() == list(range(1000))[::-1]


def test_ids_that_all_want_one_place_are_still_told_apart(monkeypatch):
    monkeypatch.setattr(hash_index, "GOLDEN", np.uint64(0))
    ids = np.arange(50) * 7
    asked = np.arange(350)
    assert HashIndex(ids).rows(asked).tolist() == IdIndex(ids).rows(asked).tolist()


def test_nothing_is_asked_and_nothing_found():
    assert HashIndex(np.arange(3)).rows(np.array([], dtype=np.int64)).tolist() == []
