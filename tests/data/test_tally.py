"""Counting by blocks gives what counting at once does."""

from collections import Counter

import numpy as np
import pytest

from torchrec_mm.data.tally import FirstValues, IdTally


@pytest.mark.parametrize("blocks", [1, 2, 7, 50])
def test_blocks_count_as_the_whole_does(blocks):
    ids = np.random.default_rng(blocks).integers(-40, 40, 500) * (2**57)
    tally = IdTally()
    for block in np.array_split(ids, blocks):
        tally.add(block)
    found, counts = tally.result()
    assert list(found) == sorted(set(ids.tolist()))
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == Counter(ids.tolist())


def test_ids_can_be_noted_without_being_counted():
    tally = IdTally()
    tally.add(np.array([3, 1]), counted=False)
    tally.add(np.array([3, 2, 3]))
    tally.add(np.array([], dtype=np.int64))
    assert [part.tolist() for part in tally.result()] == [[1, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize("blocks", [1, 2, 7, 50])
def test_an_id_keeps_the_value_that_it_came_with_first(blocks):
    rng = np.random.default_rng(blocks)
    ids, values = rng.integers(0, 60, 500), rng.integers(-9, 9, 500)
    first = FirstValues()
    for block in np.array_split(np.arange(500), blocks):
        first.add(ids[block], values[block])
    expected = dict(reversed(list(zip(ids.tolist(), values.tolist(), strict=True))))
    assert dict(zip(*(part.tolist() for part in first.result()), strict=True)) == expected


@pytest.mark.parametrize("kind", [IdTally, FirstValues])
def test_nothing_comes_of_nothing(kind):
    assert [part.tolist() for part in kind().result()] == [[], []]


def test_runs_are_merged_as_they_come_so_that_few_are_held():
    tally = IdTally()
    for block in range(200):
        tally.add(np.arange(block % 5, 60))
    assert len(tally._runs) < 8
