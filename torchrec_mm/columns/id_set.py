"""Distinct ids of data of any length: memory grows with the distinct ones only."""

import numpy as np


class IdSet:
    """Collects ids block by block.

    Keeps sorted runs of distinct ids whose lengths at least halve from one to the next; a block
    merges with the runs it outgrows, so that each id is moved O(log blocks) times.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, ids: np.ndarray) -> None:
        """Note a block: (n,) int64."""
        if len(ids) == 0:
            return
        self._runs.append(without_repeats(np.sort(ids)))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._merge_last_two()

    def result(self) -> np.ndarray:
        """(N,) int64 distinct ids, ascending."""
        while len(self._runs) > 1:
            self._merge_last_two()
        return self._runs[0] if self._runs else np.empty(0, np.int64)

    def _merge_last_two(self) -> None:
        self._runs[-2:] = [union(*self._runs[-2:])]


def union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distinct values of two ascending arrays, ascending; linear, unlike ``np.union1d``."""
    return without_repeats(np.sort(np.concatenate([a, b]), kind="stable"))


def without_repeats(ordered: np.ndarray) -> np.ndarray:
    """Distinct values of an ascending array; far faster than ``np.unique``, which hashes."""
    if len(ordered) == 0:
        return ordered
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
