"""Counts and first values of items, by the kernel or by NumPy, as a loop in Python has them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.kernels.tally import count, count_reference, keep_first, keep_first_reference

ITEMS = 5
COMES = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.sampled_from([-(2**63), -1, 0, 7])))


@pytest.mark.parametrize("of", [count, count_reference])
@settings(deadline=None)  # the first call may compile
@given(blocks=st.lists(st.lists(st.integers(0, ITEMS - 1)), max_size=3))
def test_each_occurrence_is_counted(of, blocks):
    counts = np.zeros(ITEMS, np.int64)
    for block in blocks:
        of(counts, np.array(block, np.int32))
    together = sum(blocks, [])
    assert counts.tolist() == [together.count(item) for item in range(ITEMS)]


@pytest.mark.parametrize("of", [keep_first, keep_first_reference])
@settings(deadline=None)
@given(blocks=st.lists(COMES, max_size=3))
def test_the_first_value_is_kept_and_what_contradicts_it_is_counted(of, blocks):
    values, known, kept, others = np.zeros(ITEMS, np.int64), np.zeros(ITEMS, bool), {}, 0
    for block in blocks:
        items, given_values = np.array(block, np.int64).reshape(-1, 2).T
        others += of(values, known, items.astype(np.int32), given_values)
    wrong = sum(kept.setdefault(item, value) != value for item, value in sum(blocks, []))
    assert others == wrong
    assert {item: int(values[item]) for item in np.flatnonzero(known)} == kept
