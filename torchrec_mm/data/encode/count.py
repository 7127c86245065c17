"""What the first pass notes of ids besides their numbers: how often, where, and with what."""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.kernels.tally import count, keep_first


class ItemCounts:
    """Occurrences of items in a split.

    candidates, behaviours: (U,) int64, by number of the item, once ``reorder`` was called.
    """

    def __init__(self) -> None:
        self.candidates = np.zeros(0, np.int64)
        self.behaviours = np.zeros(0, np.int64)

    def add(self, candidates: np.ndarray, behaviours: np.ndarray, num_items: int) -> None:
        """Count a block of items, given by their numbers below ``num_items``."""
        self.candidates = grown(self.candidates, num_items)
        self.behaviours = grown(self.behaviours, num_items)
        count(self.candidates, candidates)
        count(self.behaviours, behaviours)

    def reorder(self, order: np.ndarray) -> None:
        """Have item ``order[i]`` at i: (U,), all items."""
        self.candidates = grown(self.candidates, len(order))[order]
        self.behaviours = grown(self.behaviours, len(order))[order]

    def sum_of(self, values: np.ndarray) -> int:
        """The sum of (U,) int64 values of items over all occurrences."""
        return int(((self.candidates + self.behaviours) * values).sum())

    def total(self, of_items: np.ndarray, with_behaviours: bool) -> int:
        """Occurrences of the items where ``of_items``, (U,) bool, is True."""
        counts = [self.candidates, self.behaviours] if with_behaviours else [self.candidates]
        return sum(int(each[of_items].sum()) for each in counts)


class FeatureIds:
    """The values of a feature by number, and how often training shows each."""

    def __init__(self) -> None:
        self._index = HashIndex()
        self._trained = np.zeros(0, np.int64)

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64 by number."""
        return self._index.ids

    @property
    def trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Those that training shows, (n,) int64, ascending, and how often: (n,) int64."""
        numbers = np.flatnonzero(self._trained)
        order = np.argsort(self.ids[numbers])
        return self.ids[numbers][order], self._trained[numbers][order]

    def number(self, ids: np.ndarray, in_training: bool) -> np.ndarray:
        """(n,) int32 numbers of (n,) int64 ids."""
        numbers = self._index.add(ids)
        if in_training:
            self._trained = grown(self._trained, len(self._index))
            count(self._trained, numbers)
        return numbers


@dataclass
class LearnedAttribute:
    """An attribute of items that behaviours know too.

    values: (U,) int64 and known: (U,) bool, by number of the item. disagreements: how many
    behaviours had another value than the one kept.
    """

    values: np.ndarray
    known: np.ndarray
    disagreements: int = 0

    def learn(self, items: np.ndarray, values: np.ndarray, num_items: int) -> None:
        """Keep the first value of items without one, and count what others contradict it.

        ``items``: (n,) int32 numbers below ``num_items``. ``values``: (n,) int64 of each.
        """
        self.values, self.known = grown(self.values, num_items), grown(self.known, num_items)
        self.disagreements += keep_first(self.values, self.known, items, values)


def grown(array: np.ndarray, length: int) -> np.ndarray:
    """The array, or a longer one that begins with it and goes on with zeros."""
    if length <= len(array):
        return array
    longer = np.zeros(max(length, 2 * len(array)), array.dtype)
    longer[: len(array)] = array
    return longer
