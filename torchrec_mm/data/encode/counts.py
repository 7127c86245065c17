"""How often each item of the universe occurs, in training and elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from torchrec_mm.data.encode.source import TRAIN


@dataclass(frozen=True)
class ItemCounts:
    """candidates, behaviours: (U,) int64 occurrences of each item."""

    candidates: np.ndarray
    behaviours: np.ndarray

    @classmethod
    def none(cls, num_items: int) -> "ItemCounts":
        return cls(np.zeros(num_items, np.int64), np.zeros(num_items, np.int64))

    def add(self, candidates: np.ndarray, behaviours: np.ndarray) -> None:
        """Count a block of items: rows of the universe."""
        np.add.at(self.candidates, candidates, np.int64(1))
        np.add.at(self.behaviours, behaviours, np.int64(1))


class SplitCounts:
    """Counts of training, and of all other splits together."""

    def __init__(self, num_items: int, splits: Iterable[str]) -> None:
        kinds = {split == TRAIN for split in splits}
        self._of = {is_train: ItemCounts.none(num_items) for is_train in kinds}

    def __getitem__(self, split: str) -> ItemCounts:
        return self._of[split == TRAIN]

    def total(self, of_items: np.ndarray, with_behaviours: bool) -> int:
        """Occurrences in all splits of the items where ``of_items``, (U,) bool, is True."""
        total = sum(counts.candidates[of_items].sum() for counts in self._of.values())
        if with_behaviours:
            total += sum(counts.behaviours[of_items].sum() for counts in self._of.values())
        return int(total)
