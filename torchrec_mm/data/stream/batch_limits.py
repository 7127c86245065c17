"""What bounds a global batch, and how requests in order are cut by that.

Batches are not padded, but attention pads lists to the longest of the batch wherever no kernel
runs, on CUDA too, and one long request makes every other as costly as itself there: what has to be
bounded is the padded size, on all machines, so that all cut alike.
"""

from dataclasses import dataclass

import numpy as np

PADDED = 1 << 22
PADDED_A_REQUEST = 1 << 12


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What bounds a global batch, over all ranks.

    requests: the most requests. behaviours: the most behaviours, None for any number; a single
    request may exceed it. attended: the newest behaviours of a request that a model compares with
    each candidate, None where nothing is padded. padded: the most of ``padded_size``.
    """

    requests: int
    behaviours: int | None = None
    attended: int | None = None
    padded: int = PADDED

    @classmethod
    def to_score(cls, requests: int, *, attended: int) -> "BatchLimits":
        """Of batches to score: what is in a batch together does not matter."""
        return cls(requests=requests, attended=attended)

    @classmethod
    def to_learn(cls, requests: int, *, behaviours: int | None, attended: int) -> "BatchLimits":
        """Of batches to learn from: of many requests asked for, as many unless they are long."""
        padded = max(PADDED, PADDED_A_REQUEST * requests)
        return cls(requests=requests, behaviours=behaviours, attended=attended, padded=padded)

    def padded_size(
        self,
        requests: np.ndarray | int,
        candidates: np.ndarray | int,
        behaviours: np.ndarray | int,
    ) -> np.ndarray:
        """Memory of so many requests with such longest lists, in pairs of the two. Float64.

        Of its own, a candidate takes as much as 32 pairs and a behaviour as much as 8. A pair
        takes about 0.1 kB to score and 0.2 kB to learn from.
        """
        assert self.attended is not None  # where nothing is padded, there is no such size
        attended = np.minimum(behaviours, self.attended)
        return requests * ((candidates + 8.0) * (attended + 32.0))

    def may_bind(self, candidates: int, behaviours: int) -> bool:
        """Whether ``requests`` requests with lists of at most that length could be too much."""
        if self.attended is None:
            return False
        return bool(self.padded_size(self.requests, candidates, behaviours) > self.padded)

    def num_pieces(self, candidates: np.ndarray, behaviours: np.ndarray) -> np.ndarray:
        """(n,) int64: into how many pieces each request must be cut, nearly always 1.

        Not by ``padded`` where that is more than usual: a position that counts pieces then
        outlives a change of ``requests``.
        """
        if self.attended is None:
            return np.ones(len(candidates), dtype=np.int64)
        attended = np.minimum(behaviours, self.attended)
        most = np.maximum(min(PADDED, self.padded) // (attended + 32) - 8, 1)
        return np.maximum(-(-candidates.astype(np.int64) // most), 1)

    def cut(self, candidates: np.ndarray, behaviours: np.ndarray) -> np.ndarray:
        """(steps,) int64, where batches end: each takes what the limits allow, at least one.

        Greedy, so that cutting what is left after a batch gives the batches that follow it.

        Args:
            candidates, behaviours: (n,), of requests in order; infinitely many candidates make a
                request a batch of its own.
        """
        total, ends, end = len(candidates), [], 0
        bound = self.may_bind(candidates.max(initial=0), behaviours.max(initial=0))
        if self.behaviours is None and not bound:
            return np.minimum(np.arange(self.requests, total + self.requests, self.requests), total)
        before = np.concatenate([[0], np.cumsum(behaviours, dtype=np.int64)])
        while end < total:
            begin, end = end, min(end + self.requests, total)
            if self.behaviours is not None:
                spent = before[begin] + self.behaviours
                end = min(end, int(np.searchsorted(before, spent, side="right")) - 1)
            if bound:
                longest = np.maximum.accumulate([candidates[begin:end], behaviours[begin:end]], 1)
                size = self.padded_size(np.arange(1, end - begin + 1), *longest)
                end = begin + int(np.searchsorted(size, self.padded, side="right"))
            end = max(end, begin + 1)
            ends.append(end)
        return np.array(ends, dtype=np.int64)
