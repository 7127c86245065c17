"""What is known of the ids in data of any length: memory grows with the distinct ids only."""

import numpy as np

Run = tuple[np.ndarray, np.ndarray]


class _Runs:
    """Sorted runs of distinct ids and a value of each, whose lengths at least halve.

    A new block merges with the runs it outgrows, so that each id is moved O(log blocks) times.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def result(self) -> Run:
        """(N,) int64 distinct ids, ascending, and (N,) int64 the value of each."""
        while len(self._runs) > 1:
            self._merge_last_two()
        return self._runs[0] if self._runs else (np.empty(0, np.int64), np.empty(0, np.int64))

    def _push(self, distinct: np.ndarray, values: np.ndarray) -> None:
        if len(distinct):
            self._runs.append((distinct, values))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            self._merge_last_two()

    def _merge_last_two(self) -> None:
        newer, older = self._runs.pop(), self._runs.pop()
        ids = np.concatenate([older[0], newer[0]])
        order = np.argsort(ids, kind="stable")  # two sorted runs: one linear pass
        ids = ids[order]
        first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        values = np.concatenate([older[1], newer[1]])[order]
        self._runs.append((ids[first], self._join(values, first)))

    def _join(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        """One value an id, from the one or two that begin at ``first``; the older comes first."""
        raise NotImplementedError


class IdTally(_Runs):
    """How often each id occurs."""

    def add(self, ids: np.ndarray, counted: bool = True) -> None:
        """Count a block: (n,) int64. ``counted`` False notes the ids without counting them."""
        distinct, counts = np.unique(ids, return_counts=True)
        self._push(distinct, counts if counted else np.zeros_like(counts))

    def _join(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, first)


class FirstValues(_Runs):
    """The value that each id came with first."""

    def add(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Note a block: (n,) int64 each."""
        distinct, first = np.unique(ids, return_index=True)
        self._push(distinct, values[first])

    def _join(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        return values[first]
