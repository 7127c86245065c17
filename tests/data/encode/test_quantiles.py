"""Quantiles of streamed numbers are those of the sorted numbers, whatever the blocks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.data.encode.quantiles import quantiles

SHARES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
NUMBERS = st.floats(allow_nan=True, allow_infinity=False)


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(1, 5))
def test_each_is_the_number_at_its_rank(numbers, num_blocks):
    values = np.array(numbers)
    known = np.sort(values[~np.isnan(values)])
    found = quantiles(lambda: np.array_split(values, num_blocks), SHARES)
    expected = {share: known[int(share * (len(known) - 1))] for share in SHARES if len(known)}
    assert found == expected


def test_of_no_number_there_is_none():
    assert quantiles(lambda: [np.array([np.nan]), np.array([])], SHARES) == {}
