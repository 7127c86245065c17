"""Places of ids in a list, found by the kernel or a probe at a time by NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.kernels.hash_table import (
    add_ids,
    add_ids_reference,
    empty_table,
    find_places,
    find_places_reference,
)

both = pytest.mark.parametrize(
    ("add", "find"), [(add_ids, find_places), (add_ids_reference, find_places_reference)]
)
IDS = st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)
ROOM = 12


@both
@settings(deadline=None)  # the first call may compile
@given(blocks=st.lists(st.lists(IDS, max_size=20), max_size=3), more=st.lists(IDS, max_size=9))
def test_ids_are_appended_as_they_come_until_there_is_no_room(add, find, blocks, more):
    slots, ids, held, known = empty_table(4), np.empty(ROOM, np.int64), 0, []
    for block in blocks:
        places = np.full(len(block), -7, np.int32)
        done, held = add(slots, ids, held, np.array(block, np.int64), places)
        for number, value in enumerate(block):
            if value not in known and len(known) == ROOM:
                assert done == number
                break
            known += [] if value in known else [value]
            assert places[number] == known.index(value)
        else:
            assert done == len(block)
        assert ids[:held].tolist() == known
    asked = [*more, *known]
    places = find(slots, ids, np.array(asked, np.int64))
    assert places.tolist() == [known.index(each) if each in known else -1 for each in asked]


@both
def test_ids_of_one_hash_stay_apart(add, find):
    inverse_multiplier = pow(0x9E3779B97F4A7C15, -1, 2**64)
    products = [place * inverse_multiplier % 2**64 for place in range(500)]
    values = np.array(products, np.uint64).view(np.int64)
    slots, ids, places = empty_table(10), np.empty(700, np.int64), np.empty(500, np.int32)
    assert add(slots, ids, 0, values, places) == (500, 500)
    assert places.tolist() == list(range(500))
    assert find(slots, ids, values[::-1]).tolist() == list(range(500))[::-1]


@both
def test_ids_that_lie_apart_in_memory_are_read_in_order(add, find):
    asked = np.array([[7, 0], [7, 1], [3, 2]])[:, 0]
    slots, ids, places = empty_table(4), np.empty(9, np.int64), np.empty(3, np.int32)
    assert add(slots, ids, 0, asked, places) == (3, 2)
    assert find(slots, ids, asked).tolist() == places.tolist() == [0, 0, 1]
