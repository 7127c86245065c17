"""What the first pass leaves for the second: the columns of a split on disk, as flat files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from torchrec_mm.columns.jagged import Jagged

LENGTHS = "lengths"
BLOCK = 1 << 18  # lengths of requests, or values, that are looked at together


@dataclass(frozen=True)
class Stretch:
    """Requests one after another: where they, their candidates and their behaviours are.

    sequences: where the values of each further behaviour sequence are.
    """

    requests: slice
    candidates: slice
    behaviours: slice
    sequences: tuple[slice, ...] = ()

    @classmethod
    def between(cls, begin: np.ndarray, end: np.ndarray) -> "Stretch":
        """``begin``, ``end``: (3 + sequences,), requests and values of each list before."""
        requests, candidates, behaviours, *sequences = map(slice, begin.tolist(), end.tolist())
        return cls(requests, candidates, behaviours, tuple(sequences))


class Spool:
    """Columns of one split by name, appended to in the first pass and read anywhere in the second.

    num_requests: how many have been appended, with their lengths. num_lists: of each request,
    candidates, behaviours and further behaviour sequences.
    """

    def __init__(self, folder: Path, num_lists: int = 2) -> None:
        """Create ``folder``; the columns are files in it."""
        folder.mkdir()
        self.num_lists = num_lists
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._types: dict[str, np.dtype] = {}
        self._ends: dict[str, int] = {}
        self.num_requests = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No more is appended."""
        for file in self._files.values():
            file.close()

    def append(self, name: str, values: np.ndarray) -> None:
        """Go on with a column: (n,) values, always of one type."""
        if name not in self._files:
            # By number: a feature's name need not be one that a file can have.
            self._files[name] = (self._folder / str(len(self._files))).open("wb")
            self._types[name] = values.dtype
        assert values.dtype == self._types[name]
        self._files[name].write(np.ascontiguousarray(values).data)

    def append_lengths(self, *lists: np.ndarray) -> None:
        """Go on with the lengths of each of ``num_lists``: (R,) integers each."""
        lengths = np.stack(lists, axis=1).astype(np.int32)
        self.append(LENGTHS, lengths.reshape(-1))
        self.num_requests += len(lengths)

    def append_bag(self, name: str, bags: Jagged, numbers: np.ndarray) -> None:
        """Go on with a column of bags: R lists, and (T,) what stands for their values."""
        done = self._ends.get(name, 0)
        if name not in self._ends:
            self.append(f"{name} ends", np.zeros(1, np.int64))
        self.append(name, numbers)
        self.append(f"{name} ends", bags.offsets[1:] + done)
        self._ends[name] = done + len(numbers)

    def read_bag(self, name: str, requests: slice) -> Jagged:
        """The bags of some requests."""
        offsets = self.read(f"{name} ends", slice(requests.start, requests.stop + 1))
        values = self.read(name, slice(int(offsets[0]), int(offsets[-1])))
        return Jagged(values, offsets - offsets[0])

    def num_values(self, name: str) -> int:
        """In all bags of a column."""
        return self._ends[name]

    def mapped(self, name: str) -> np.ndarray:
        """All values of a column, memory-mapped."""
        path, kind = self._files[name].name, self._types[name]
        empty = np.empty(0, kind)  # nothing, which cannot be mapped
        return np.memmap(path, kind, "r") if os.path.getsize(path) else empty

    def read(self, name: str, where: slice) -> np.ndarray:
        """Some values of a column; from several threads if need be."""
        kind = self._types[name]
        count, offset = where.stop - where.start, where.start * kind.itemsize
        return np.fromfile(self._files[name].name, kind, count, offset=offset)

    def blocks(self, name: str, count: int) -> Iterator[np.ndarray]:
        """The first ``count`` values of a column, ``BLOCK`` at a time."""
        for begin in range(0, count, BLOCK):
            yield self.read(name, slice(begin, min(begin + BLOCK, count)))

    def lengths(self, requests: slice) -> np.ndarray:
        """(n, num_lists) int32 of those requests."""
        width = self.num_lists
        where = slice(width * requests.start, width * requests.stop)
        return self.read(LENGTHS, where).reshape(-1, width)

    def blocks_of_lengths(self) -> Iterator[np.ndarray]:
        """The lengths of all requests, (n, num_lists) int32 at a time."""
        for begin in range(0, self.num_requests, BLOCK):
            yield self.lengths(slice(begin, min(begin + BLOCK, self.num_requests)))

    def blocks_of_bag_values(self) -> Iterator[np.ndarray]:
        """How many values the bags of each request hold, (n,) int64 at a time as the lengths."""
        for begin in range(0, self.num_requests, BLOCK):
            requests = slice(begin, min(begin + BLOCK, self.num_requests))
            total = np.zeros(requests.stop - begin, np.int64)
            for name in self._ends:
                ends = self.read(f"{name} ends", slice(requests.start, requests.stop + 1))
                total += np.diff(ends)
            yield total
