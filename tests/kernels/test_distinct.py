"""Distinct ids in order of first occurrence, hashed by the kernel or sorted by PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.kernels.distinct import distinct, distinct_reference

both = pytest.mark.parametrize("number", [distinct, distinct_reference])
LARGEST = {torch.int32: 2**31 - 1, torch.int64: 2**63 - 1}


def in_plain_python(ids):
    place = {}
    inverse = [place.setdefault(value, len(place)) for value in ids]
    return list(place), inverse


@both
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@settings(deadline=None)  # the first call may compile
@given(data=st.data())
def test_ids_are_numbered_by_first_occurrence(number, dtype, data):
    ids = st.integers(-5, 5) | st.integers(-LARGEST[dtype] - 1, LARGEST[dtype])
    values = data.draw(st.lists(ids, max_size=50))
    unique, inverse = number(torch.tensor(values, dtype=dtype))
    assert (unique.tolist(), inverse.tolist()) == in_plain_python(values)
    assert (unique.dtype, inverse.dtype) == (dtype, torch.int32)


@both
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("known", [10, 3_000, 10**9])
def test_many_ids_are_numbered_too(number, dtype, known):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(known, (20_000,), generator=generator).to(dtype)
    unique, inverse = number(ids)
    assert (unique.tolist(), inverse.tolist()) == in_plain_python(ids.tolist())


def test_ids_that_lie_apart_in_memory_are_read_in_order():
    ids = torch.tensor([[7, 0], [7, 1], [3, 2]])[:, 0]
    unique, inverse = distinct(ids)
    assert (unique.tolist(), inverse.tolist()) == ([7, 3], [0, 0, 1])


@pytest.mark.parametrize("ids", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3)])
def test_other_shapes_and_dtypes_are_refused(ids):
    with pytest.raises(ValueError, match="ids must be int32 or int64"):
        distinct(ids)


def test_ids_of_one_hash_stay_apart():
    inverse_multiplier = pow(0x9E3779B97F4A7C15, -1, 2**64)
    products = [place * inverse_multiplier % 2**64 for place in range(500)]
    values = [value - 2**64 if value >= 2**63 else value for value in products] * 2
    unique, inverse = distinct(torch.tensor(values))
    assert (unique.tolist(), inverse.tolist()) == in_plain_python(values)
