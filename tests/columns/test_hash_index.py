"""Hashing finds what binary search or a dictionary finds, whatever the ids look like."""

import numpy as np
import pytest

from torchrec_mm.columns import hash_index
from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.ids import IdIndex
from torchrec_mm.kernels.build import SWITCH

SHAPES = {
    "counting": np.arange(-500, 500),
    "one": np.array([-7]),
    "high bits": np.arange(1000) << 50,
    "hashes": np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 3000),
    "extremes": np.array([-(2**63), -1, 0, 1, 2**63 - 1]),
    "none": np.array([], dtype=np.int64),
}


@pytest.fixture(params=["kernel", "no kernel"])
def either(request, monkeypatch):
    if request.param == "no kernel":
        monkeypatch.setenv(SWITCH, "0")


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_known_ids_have_their_rows_and_unknown_ones_minus_one(name, block, monkeypatch):
    monkeypatch.setattr(hash_index, "BLOCK", block)
    ids = np.unique(SHAPES[name])
    asked = np.concatenate([ids, ids[::-1], ids + 1, ids ^ (1 << 40), np.arange(-20, 20)])
    assert HashIndex(ids).rows(asked).tolist() == IdIndex(ids).rows(asked).tolist()


@pytest.mark.usefixtures("either")
def test_ids_may_come_in_any_order_and_rows_are_where_they_came():
    ids = np.random.default_rng(0).permutation(1000) * 3
    assert HashIndex(ids).rows(ids[::-1]).tolist() == list(range(1000))[::-1]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bits", [1, 10])
def test_ids_are_numbered_as_a_dictionary_numbers_them(name, bits, monkeypatch):
    monkeypatch.setattr(hash_index, "FEWEST_BITS", bits)
    ids = np.random.default_rng(1).choice(SHAPES[name], 4000) if len(SHAPES[name]) else SHAPES[name]
    index, numbers = HashIndex(), {}
    for block in np.array_split(ids, 7):
        expected = [numbers.setdefault(each, len(numbers)) for each in block.tolist()]
        assert index.add(block).tolist() == expected
        assert len(index) == len(numbers)
    assert index.ids.tolist() == list(numbers)
    unknown = np.array([each for each in range(-900, 900, 7) if each not in numbers])
    assert index.rows(ids).tolist() == [numbers[each] for each in ids.tolist()]
    assert index.rows(unknown).tolist() == [-1] * len(unknown)


@pytest.mark.usefixtures("either")
def test_what_is_added_to_given_ids_comes_after_them():
    index = HashIndex(np.array([5, -3]))
    assert index.add(np.array([7, -3, 7, 8, 5])).tolist() == [2, 1, 2, 3, 0]
    assert index.ids.tolist() == [5, -3, 7, 8]


@pytest.mark.usefixtures("either")
def test_nothing_is_asked_and_nothing_found():
    nothing = np.array([], dtype=np.int64)
    assert HashIndex(np.arange(3)).rows(nothing).tolist() == []
    assert HashIndex().rows(np.arange(3)).tolist() == [-1] * 3
    assert HashIndex().add(nothing).tolist() == []
