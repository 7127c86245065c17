"""Rows that are equal to another one, and neighbours that differ."""

from collections.abc import Sequence

import numpy as np

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.prepare.sittings import changes

ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def first_of_equal(columns: Sequence[np.ndarray], lists: Jagged | None) -> np.ndarray:
    """The first of rows that are equal in every column.

    Args:
        columns: each (N,) of any dtype. lists: a further column, N lists.

    Returns:
        (n,) int64 rows, ascending.
    """
    keys = list(columns) if lists is None else [*columns, list_hashes(lists)]
    order = np.lexsort(keys)  # stable, so that the first of equal rows comes first
    differ = np.logical_or.reduce([changes(values[order]) for values in keys])
    if lists is not None and not differ.all():
        differ |= list_changes(lists.take(order)[0])
    return np.sort(order[differ])


def list_changes(lists: Jagged) -> np.ndarray:
    """Whether each list differs from the one before it: (R,) bool, the first does."""
    differ = changes(lists.lengths)
    same_length = np.flatnonzero(~differ)
    here, lengths = lists.positions(same_length)
    before, _ = lists.positions(same_length - 1)
    unequal = lists.values[here] != lists.values[before]
    differ[np.repeat(same_length, lengths)[unequal]] = True
    return differ


def list_hashes(lists: Jagged) -> np.ndarray:
    """(R,) uint64, equal for equal lists of int64, and nearly never for others."""
    place = np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lists.lengths)
    mixed = (lists.values.astype(np.uint64) + place.astype(np.uint64) * ODD[0]) * ODD[1]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * ODD[0]
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
    return sums[lists.offsets[1:]] - sums[lists.offsets[:-1]] + lists.lengths.astype(np.uint64)
