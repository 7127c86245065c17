"""Arbitrary 64-bit ids to rows by hashing: for many look-ups in one list of ids."""

import numpy as np

MOST_FULL = 0.75
EMPTY = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth's multiplicative hashing
BUILD_BLOCK = 1 << 20


class HashIndex:
    """Where each id sits in a list of unique ids, like ``IdIndex``, for blocks of look-ups.

    Open addressing with linear probing, all ids of a block a probe at a time: about two random
    reads an id, which the processor overlaps, where a binary search waits for twenty-five. Costs
    5 to 11 bytes an id besides the ids.
    """

    def __init__(self, ids: np.ndarray) -> None:
        """``ids``: (N,) int64, N < 2^31, without repeats (the caller's promise)."""
        self.ids = ids
        bits = max(1, int(len(ids) / MOST_FULL).bit_length())
        self._shift = np.uint64(64 - bits)
        self._last = (1 << bits) - 1
        self._table = np.full(1 << bits, EMPTY, dtype=np.int32)
        for begin in range(0, len(ids), BUILD_BLOCK):
            self._insert(np.arange(begin, min(begin + BUILD_BLOCK, len(ids)), dtype=np.int32))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int32 row of each id: (n,) int64; -1 where it is unknown."""
        place = self._home(ids)
        rows = self._table[place]
        if len(self.ids) == 0:
            return rows
        others = np.flatnonzero((rows != EMPTY) & (self.ids[rows] != ids))
        place = place[others]
        while len(others):
            place = (place + 1) & self._last
            found = self._table[place]
            rows[others] = found
            another = (found != EMPTY) & (self.ids[found] != ids[others])
            others, place = others[another], place[another]
        return rows

    def _insert(self, rows: np.ndarray) -> None:
        place = self._home(self.ids[rows])
        while len(rows):
            free = self._table[place] == EMPTY
            self._table[place[free]] = rows[free]
            # Of several that wanted one place the last has it; the others go on.
            lost = self._table[place] != rows
            rows, place = rows[lost], (place[lost] + 1) & self._last

    def _home(self, ids: np.ndarray) -> np.ndarray:
        return ((ids.view(np.uint64) * GOLDEN) >> self._shift).view(np.int64)
