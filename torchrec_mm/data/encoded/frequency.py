"""How often each item was a candidate in training, kept with the run for evaluation by slice."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.ids import IdIndex


@dataclass(frozen=True)
class ItemFrequency:
    """item_ids: (N,) int64, ascending. counts: (N,) int64, training impressions of each."""

    item_ids: np.ndarray
    counts: np.ndarray

    def __call__(self, item_ids: np.ndarray) -> np.ndarray:
        """int64 counts of ids of any shape; 0 for an item that training never showed."""
        return np.append(self.counts, 0)[IdIndex(self.item_ids).rows(item_ids)]

    def save(self, path: Path) -> None:
        with new_file(path) as aside:
            save_file({"item_ids": self.item_ids, "counts": self.counts}, aside)

    @classmethod
    def load(cls, path: Path) -> "ItemFrequency":
        if not path.is_file():
            raise InputError(f"{path} must be the item frequencies of a ranker run: no such file")
        return cls(**load_file(path))
