"""Numbers from Arrow to NumPy and back; Arrow's own ways load pandas, which takes half a second."""

import numpy as np
import pyarrow as pa


def to_numpy(numbers: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, no nulls among them; not copied where they lie in one piece."""
    array = in_one(numbers) if isinstance(numbers, pa.ChunkedArray) else numbers
    assert array.null_count == 0
    dtype = np.dtype(array.type.to_pandas_dtype())
    assert dtype.kind in "iuf"  # Arrow packs booleans
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """All values of a column, not copied where it is one chunk, as Arrow's own way would."""
    if column.num_chunks == 1:
        return column.chunk(0)
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def to_arrow(numbers: np.ndarray) -> pa.Array:
    """(n,) numbers, not copied where they lie side by side."""
    assert numbers.dtype.kind in "iuf"
    kind = pa.from_numpy_dtype(numbers.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(kind, len(numbers), [None, buffer])
