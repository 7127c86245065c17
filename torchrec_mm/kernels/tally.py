"""Notes of items by their place in a list: how often each came, and the first value it came with.

Shape letters: U items, n occurrences.
"""

import ctypes

import numpy as np

from torchrec_mm.kernels.build import compiled


def count(counts: np.ndarray, places: np.ndarray) -> None:
    """Add one to ``counts``, (U,) int64, for each of ``places``, (n,) int32 in [0, U)."""
    kernel = compiled("tally")
    if kernel is None:
        count_reference(counts, places)
        return
    places = np.ascontiguousarray(places)
    kernel.count(_pointer(counts), _pointer(places), ctypes.c_int64(len(places)))


def count_reference(counts: np.ndarray, places: np.ndarray) -> None:
    """:func:`count` without a kernel."""
    np.add.at(counts, places, np.int64(1))


def keep_first(values: np.ndarray, known: np.ndarray, places: np.ndarray, given: np.ndarray) -> int:
    """Keep the first value of items without one.

    Args:
        values: (U,) int64 and known: (U,) bool, whether there is one; written to.
        places: (n,) int32 in [0, U). given: (n,) int64 value that each comes with.

    Returns:
        How many of ``given`` are not the value kept.
    """
    kernel = compiled("tally")
    if kernel is None:
        return keep_first_reference(values, known, places, given)
    places, given = np.ascontiguousarray(places), np.ascontiguousarray(given)
    kernel.keep_first.restype = ctypes.c_int64
    arrays = map(_pointer, (values, known, places, given))
    return kernel.keep_first(*arrays, ctypes.c_int64(len(places)))


def keep_first_reference(
    values: np.ndarray, known: np.ndarray, places: np.ndarray, given: np.ndarray
) -> int:
    """:func:`keep_first` without a kernel."""
    new = np.flatnonzero(~known[places])[::-1]  # backwards, so that the first is written last
    values[places[new]] = given[new]
    known[places[new]] = True
    return int(np.count_nonzero(values[places] != given))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
