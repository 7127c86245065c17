"""Numbers from Arrow to NumPy and back; Arrow's own ways load pandas, which takes half a second."""

import numpy as np
import pyarrow as pa


def to_numpy(numbers: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, no nulls among them; not copied where they lie in one piece."""
    array = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    assert array.null_count == 0
    dtype = np.dtype(array.type.to_pandas_dtype())
    assert dtype.kind in "iuf"  # Arrow packs booleans
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def to_arrow(numbers: np.ndarray) -> pa.Array:
    """(n,) numbers, not copied where they lie side by side."""
    assert numbers.dtype.kind in "iuf"
    kind = pa.from_numpy_dtype(numbers.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(kind, len(numbers), [None, buffer])
