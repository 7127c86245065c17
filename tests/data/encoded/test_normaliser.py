"""Numbers in the range of a network's inputs: by quantiles, clipped, null apart."""

import numpy as np
import pytest

from torchrec_mm.data.encoded.normaliser import CLIP, SHARES, Normaliser
from torchrec_mm.errors import InputError


def learned(values: list[float]) -> Normaliser:
    ordered = np.sort(values)
    quantiles = {share: float(ordered[int(share * (len(values) - 1))]) for share in SHARES}
    return Normaliser.of(quantiles, False, "column price")


def test_the_middle_half_is_one_wide_and_outliers_are_clipped():
    normaliser = learned([1, 2, 3, 4, 1e9])
    found = normaliser(np.array([3, 2, 5, 1e9, -1e9, np.nan]))
    assert found.dtype == np.float32
    assert found[:5].tolist() == [0, -0.5, 1, CLIP, -CLIP] and np.isnan(found[5])


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0] * 90 + [7] * 10, 7),  # between 1 and 99 of 100
        ([0] * 999 + [7], 7),  # between the ends alone
    ],
)
def test_numbers_that_are_mostly_one_are_scaled_by_what_is_left(values, scale):
    assert learned(values).scale == scale


def test_a_number_that_never_changes_is_refused_and_so_is_none():
    with pytest.raises(InputError, match="^column price must hold two values in .*, got 4.0 only$"):
        learned([4.0, 4.0])
    with pytest.raises(InputError, match="^column price must hold values in .*, got nulls only$"):
        Normaliser.of({}, False, "column price")


def test_it_comes_back_from_an_array():
    normaliser = Normaliser(0.1, 1e-300, log1p=True)
    assert Normaliser.from_array(normaliser.array()) == normaliser
