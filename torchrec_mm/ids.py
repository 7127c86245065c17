"""Arbitrary 64-bit ids to dense rows, a batch at a time."""

import numpy as np
from numpy.typing import ArrayLike

from torchrec_mm.errors import InputError


def as_ids(ids: ArrayLike, field: str) -> np.ndarray:
    """Int64 of the same shape, exactly: a float has lost digits already, or stands for a null.

    Raises:
        InputError: anything but whole numbers that int64 holds; ``field`` names them.
    """
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{field} must be int64, got {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{field} must be int64, got {array.max()}")
    return array.astype(np.int64, copy=False)


class IdIndex:
    """Where each id sits in a sorted list of unique ids.

    Binary search, no copy of the ids: works on a memory-mapped array as on one in memory.
    """

    def __init__(self, sorted_ids: np.ndarray) -> None:
        """``sorted_ids``: (N,) int64, strictly ascending (the caller's promise)."""
        self.sorted_ids = sorted_ids

    def __len__(self) -> int:
        return len(self.sorted_ids)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Row of each id, in any shape.

        ``ids``: int64 of any shape; duplicates allowed.

        Returns:
            int64 of the same shape, in [0, N), or -1 where the id is unknown.
        """
        if len(self.sorted_ids) == 0:
            return np.full(np.shape(ids), -1, dtype=np.int64)
        found = np.searchsorted(self.sorted_ids, ids)
        found = np.minimum(found, len(self.sorted_ids) - 1)
        return np.where(self.sorted_ids[found] == ids, found, -1)


def sort_unique(ids: np.ndarray, field: str) -> np.ndarray:
    """(N,) int64 positions that sort ``ids``; InputError, naming ``field``, if one occurs twice."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise InputError(f"{field} must be unique, got {ordered[twice[0]]} more than once")
    return order
