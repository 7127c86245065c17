"""Collecting by blocks gives what collecting at once does."""

import numpy as np
import pytest

from torchrec_mm.columns.id_set import IdSet, union, without_repeats


@pytest.mark.parametrize("blocks", [1, 2, 7, 50])
def test_blocks_give_what_the_whole_does(blocks):
    ids = np.random.default_rng(blocks).integers(-40, 40, 500) * (2**57)
    found = IdSet()
    for block in np.array_split(ids, blocks):
        found.add(block)
    assert found.result().tolist() == sorted(set(ids.tolist()))


def test_nothing_comes_of_nothing():
    found = IdSet()
    found.add(np.array([], dtype=np.int64))
    assert found.result().tolist() == []
    assert found.result().dtype == np.int64
    assert without_repeats(np.array([])).tolist() == []


def test_runs_are_merged_as_they_come_so_that_few_are_held():
    found = IdSet()
    for block in range(200):
        found.add(np.arange(block % 5, 60))
    assert len(found._runs) < 8


def test_a_union_holds_each_id_of_both_once():
    assert union(np.array([1, 3, 9]), np.array([-4, 3])).tolist() == [-4, 1, 3, 9]
    assert union(np.array([], np.int64), np.array([2])).tolist() == [2]
