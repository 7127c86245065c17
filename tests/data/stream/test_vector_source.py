"""Sources of vectors for a batch: whichever it is, the same rows mean the same vectors."""

import numpy as np
import pytest

from tests.helpers.live import changes, new_index
from torchrec_mm.data.stream.vector_source import Fetched, GatheredVectors, MappedVectors
from torchrec_mm.item_vectors.live.publish import publish
from torchrec_mm.item_vectors.live.reader import IndexReader

ITEMS = np.array([4, 3, 2, 1, 4, 9])


@pytest.fixture
def live(tmp_path):
    """Items 1 and 2 published, 2 changed and 4 new since, 3 deleted."""
    index, log = new_index(tmp_path, (1, 1, 10), (2, 1, 20), (3, 1, 30))
    publish(index)
    log.write(changes((2, 2, 21), (3, 2, None), (4, 1, 40)), log.space.origin)
    return IndexReader(index).vectors


def fills(fetched: Fetched) -> tuple[list[int], list[int]]:
    """What the vectors of candidates and behaviours are filled with, 0 for none."""
    values = np.append(fetched.matrix[:, 0].numpy(), 0)  # row -1
    return values[fetched.candidate_rows].tolist(), values[fetched.behaviour_rows].tolist()


@pytest.mark.parametrize("source_of", [GatheredVectors, MappedVectors])
def test_a_batch_finds_its_vectors_in_what_is_fetched_for_it(live, source_of):
    source = source_of(live)
    rows = source.rows(ITEMS).astype(np.int32)
    assert fills(source.fetch(rows[:2], rows[2:])) == ([40, 0], [21, 10, 40, 0])
    assert fills(source.fetch(rows[1:2], rows[5:])) == ([0], [0])
    values, mask = source.gather(rows)
    assert mask.tolist() == [True, False, True, True, True, False]
    assert values[:, 0].tolist() == [40, 0, 21, 10, 40, 0]


def test_of_live_vectors_a_batch_fetches_no_more_than_it_needs(live):
    rows = live.rows(ITEMS).astype(np.int32)
    fetched = GatheredVectors(live).fetch(rows[:2], rows[4:])
    assert fetched.matrix.shape == (2, 3)  # of item 4, once, and the zeros of those without one
    assert fetched.candidate_rows.tolist()[1] == -1
    assert fetched.candidate_rows.dtype == fetched.behaviour_rows.dtype == np.int32
