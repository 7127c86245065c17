"""How many ids were asked for, and how many had a vector: coverage, as it is met."""

from threading import Lock

import numpy as np


class Counts:
    """asked, found: ids since the start, repeats included; of any number of threads."""

    def __init__(self) -> None:
        self.asked = self.found = 0
        self._lock = Lock()

    def add(self, rows: np.ndarray) -> None:
        """``rows``: int of any shape, of ids that were asked for, negative for one not found."""
        found = int(np.count_nonzero(rows >= 0))
        with self._lock:
            self.asked += rows.size
            self.found += found

    @property
    def coverage(self) -> float:
        """Share of ids that had a vector; 1.0 before any was asked for."""
        return self.found / self.asked if self.asked else 1.0
