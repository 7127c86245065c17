"""Item frequency: training impressions of each item."""

import numpy as np
import pytest

from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.errors import InputError

FREQUENCY = ItemFrequency(np.array([-4, 3]), np.array([1, 2]))


def test_an_item_that_training_never_showed_counts_zero():
    assert FREQUENCY(np.array([[3, -4], [9, 5]])).tolist() == [[2, 1], [0, 0]]


def test_counts_come_back_from_disk(tmp_path):
    FREQUENCY.save(tmp_path / "frequency")
    assert ItemFrequency.load(tmp_path / "frequency")(np.array([-4, 3, 0])).tolist() == [1, 2, 0]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent must be the item frequencies"):
        ItemFrequency.load(tmp_path / "absent")
