"""Item frequency: training impressions of each item."""

import numpy as np
import pytest

from tests.data.encoded import requests_of
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.errors import InputError

FREQUENCY = ItemFrequency.of(requests_of([[9, 9], [3]], [[3, -4], [3]]))


def test_an_item_is_counted_as_a_candidate_only():
    assert FREQUENCY(np.array([[3, -4], [9, 5]])).tolist() == [[2, 1], [0, 0]]


def test_counts_come_back_from_disk(tmp_path):
    FREQUENCY.save(tmp_path / "frequency")
    assert ItemFrequency.load(tmp_path / "frequency")(np.array([-4, 3, 0])).tolist() == [1, 2, 0]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent must be the item frequencies"):
        ItemFrequency.load(tmp_path / "absent")
