"""Arbitrary 64-bit ids to rows by hashing: for many look-ups in one list of ids, which may grow."""

import numpy as np

from torchrec_mm.kernels.hash_table import add_ids, empty_table, find_places

MOST_FULL = 0.5
FEWEST_BITS = 10
BLOCK = 1 << 20  # ids put into a larger table at a time


class HashIndex:
    """Where each id sits in a list of unique ids, like ``IdIndex``, for blocks of look-ups.

    About two random reads an id, which are on their way from memory before they are needed, where
    a binary search waits for twenty-five. Costs 24 to 48 bytes an id, the ids included; half as
    much again for a moment, when the list outgrows its table.
    """

    def __init__(self, ids: np.ndarray | None = None) -> None:
        """``ids``: (N,) int64, N < 2^31, without repeats (the caller's promise); None: no id."""
        count = 0 if ids is None else len(ids)
        self._held = 0
        self._make_tables(max(FEWEST_BITS, int(count / MOST_FULL).bit_length()))
        if ids is not None:
            for begin in range(0, count, BLOCK):
                self.add(ids[begin : begin + BLOCK])

    def __len__(self) -> int:
        return self._held

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64 ids by row; a view, which ``add`` may leave behind."""
        return self._ids[: self._held]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int32 row of each id: (n,) int64; -1 where it is unknown."""
        return find_places(self._slots, self._ids, ids)

    def add(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int32 row of each id: (n,) int64; unknown ones get the next rows, as they come."""
        rows, done = np.empty(len(ids), np.int32), 0
        while True:
            added, self._held = add_ids(self._slots, self._ids, self._held, ids[done:], rows[done:])
            done += added
            if done == len(ids):
                return rows
            self._grow()

    def _grow(self) -> None:
        before = self.ids
        self._held = 0
        self._make_tables(len(self._slots).bit_length())
        for begin in range(0, len(before), BLOCK):
            self.add(before[begin : begin + BLOCK])

    def _make_tables(self, bits: int) -> None:
        self._slots = empty_table(bits)
        self._ids = np.empty(int(MOST_FULL * (1 << bits)), dtype=np.int64)
