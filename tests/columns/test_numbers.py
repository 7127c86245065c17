"""Numbers go from Arrow to NumPy and back unchanged."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.numbers import in_one, to_arrow, to_numpy

KINDS = [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(chunks=st.lists(st.lists(st.integers(0, 99)), max_size=3), skipped=st.integers(0, 3))
def test_chunks_and_slices_are_their_numbers(kind, chunks, skipped):
    arrays = [pa.array(np.array(chunk, kind.to_pandas_dtype()))[skipped:] for chunk in chunks]
    column = pa.chunked_array(arrays, kind)
    numbers = to_numpy(column)
    assert numbers.dtype == kind.to_pandas_dtype()
    assert numbers.tolist() == [value for chunk in chunks for value in chunk[skipped:]]
    assert to_arrow(numbers).equals(in_one(column))


def test_numbers_that_lie_apart_are_taken_in_order():
    assert to_arrow(np.arange(10)[::3]).to_pylist() == [0, 3, 6, 9]


def test_one_chunk_is_not_copied():
    array = pa.array(np.arange(10))[2:]
    numbers = to_numpy(pa.chunked_array([array]))
    assert numbers.ctypes.data == array.buffers()[1].address + 16
    assert to_arrow(numbers).buffers()[1].address == numbers.ctypes.data


def test_booleans_which_arrow_packs_are_not_taken_for_numbers():
    with pytest.raises(AssertionError):
        to_arrow(np.array([True]))
    with pytest.raises(AssertionError):
        to_numpy(pa.array([True]))


def test_pandas_is_not_loaded_for_it():
    code = (
        "import sys, numpy as np; from torchrec_mm.columns.numbers import to_arrow, to_numpy;"
        "assert to_numpy(to_arrow(np.arange(3))).tolist() == [0, 1, 2]; assert 'pandas' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
