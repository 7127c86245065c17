"""Lists of different lengths, kept as one flat array and its offsets."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.numbers import in_one, to_arrow, to_numpy
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class Jagged:
    """R lists in two arrays; list r is ``values[offsets[r]:offsets[r + 1]]``.

    values: (T,) any dtype. offsets: (R + 1,) int64, first 0, last T, never falling.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes ten times as long for a few

    def positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the lists ``rows`` lie in ``values``, one after another.

        Returns:
            (t,) int64 positions into ``values``, and (len(rows),) int64 lengths summing to t.
        """
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        return ragged_positions(starts, lengths), lengths

    def take(self, rows: np.ndarray) -> "tuple[Jagged, np.ndarray]":
        """The lists ``rows`` in that order, and the positions of their values."""
        positions, lengths = self.positions(rows)
        return Jagged(self.values[positions], offsets_of(lengths)), positions

    def slice(self, begin: int, end: int) -> "tuple[Jagged, slice]":
        """The lists [begin, end), and where their values lie, which are not copied."""
        offsets = self.offsets[begin : end + 1]
        positions = slice(int(offsets[0]), int(offsets[-1]))
        return Jagged(self.values[positions], offsets - offsets[0]), positions

    def newest(self, most: int) -> "tuple[Jagged, np.ndarray]":
        """The last ``most`` values of each list, and the positions of these values."""
        lengths = self.lengths
        if lengths.max(initial=0) <= most:
            return self, np.arange(len(self.values))
        kept = np.minimum(lengths, most)
        offsets = offsets_of(kept)
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[1:] - offsets[1:], kept)
        return Jagged(self.values[positions], offsets), positions

    def where(self, mask: np.ndarray) -> "Jagged":
        """The values at which ``mask``, (T,) bool, is True; as many lists."""
        return Jagged(self.values[mask], np.concatenate([[0], np.cumsum(mask)])[self.offsets])

    def owners(self) -> np.ndarray:
        """(T,) int64: the list that each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @classmethod
    def concatenate(cls, parts: "list[Jagged]") -> "Jagged":
        """All lists of all parts, one after another."""
        return cls(
            np.concatenate([part.values for part in parts]),
            offsets_of(np.concatenate([part.lengths for part in parts])),
        )

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray, field: str) -> "Jagged":
        """An Arrow list column, no copy per row; InputError, naming ``field``, for nulls inside."""
        values, offsets = values_and_offsets(column)
        if values.null_count:
            raise InputError(f"{field} must not hold nulls, got {values.null_count}")
        return cls(to_numpy(values), offsets)


def values_and_offsets(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """An Arrow list column in two: (T,) values of any type, and (R + 1,) int64 offsets.

    A null list is an empty one.
    """
    lists = in_one(column)
    # Unlike .values, of these lists alone where they are a slice, and none that a null hides.
    if lists.null_count:
        return lists.flatten(), offsets_of(to_numpy(pc.fill_null(lists.value_lengths(), 0)))
    offsets = to_numpy(lists.offsets).astype(np.int64)
    return lists.flatten(), offsets - offsets[0]


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """(R + 1,) int64: where lists of these lengths begin and end, one after another."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_positions(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of many slices, end to end.

    Args:
        begin: (R,) int64, first position of each slice.
        lengths: (R,) int64, not negative.

    Returns:
        (lengths.sum(),) int64: ``begin[r], begin[r] + 1, ...`` for r = 0, 1, ...
    """
    ends = np.cumsum(lengths)
    return np.repeat(begin - (ends - lengths), lengths) + np.arange(lengths.sum())


def list_array(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Cut ``values`` (sum of lengths,) into one Arrow list a row."""
    offsets = offsets_of(lengths).astype(np.int32)
    return pa.ListArray.from_arrays(to_arrow(offsets), to_arrow(values))
