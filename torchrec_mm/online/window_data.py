"""The requests of a window as a loader takes them, in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.encoded.encoded import RowGroup


class WindowData:
    """What ``RequestLoader`` asks of a data set: one row group, which is there already.

    items: what the item numbers mean. lengths, weight_sums: as of ``EncodedRequests``.
    """

    def __init__(self, arrays: RequestArrays, items: EncodedItems, files: Sequence[str]) -> None:
        """``arrays``: n requests, numbered from 0. ``files``: that they are from."""
        self.arrays, self.items = arrays, items
        named = files[0] if len(files) == 1 else f"{files[0]} to {files[-1]}"
        self.groups = [RowGroup(Path(named), 0, 0, len(arrays))]
        self.group_starts = np.zeros(1, np.int64)
        lists = (arrays.candidates, arrays.behaviours, *arrays.sequences.values())
        self.lengths = np.stack([each.lengths for each in lists], axis=1).astype(np.int32)
        self.weight_sums = None if arrays.weights is None else _weight_sums(arrays)

    def read(self, group: RowGroup) -> RequestArrays:
        """All of it."""
        return self.arrays


def _weight_sums(arrays: RequestArrays) -> np.ndarray:
    """(n, 2) float64, of each request what its impressions weigh, and its clicks do."""
    assert arrays.weights is not None
    weights = arrays.weights.astype(np.float64)
    starts = arrays.candidates.offsets[:-1]
    each = [np.add.reduceat(values, starts) for values in (weights, weights * arrays.labels)]
    return np.stack(each, axis=1)
