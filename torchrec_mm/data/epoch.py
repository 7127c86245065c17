"""Which requests make up each step of an epoch: the same for every rank and any world size.

Row groups are permuted, and requests shuffled within windows of a few row groups, so that a reader
streams and holds one window at a time. A window is cut greedily into global batches, and a batch
never straddles two windows. All of it follows from the requests' lengths, the seed and the epoch;
so ranks agree on the number of steps without a word, and a position in the epoch, counted in
requests, means the same to any number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WINDOW_GROUPS = 16


@dataclass(frozen=True)
class BatchLimits:
    """What bounds a global batch, over all ranks; a single request may exceed it.

    requests: the most requests. behaviours: the most behaviours, None for any number.
    """

    requests: int
    behaviours: int | None = None


@dataclass(frozen=True)
class Window:
    """The batches that are cut from one window of row groups.

    order: (n,) int64 requests in the order of training. ends: (steps,) int64, where each global
    batch ends in ``order``.
    """

    order: np.ndarray
    ends: np.ndarray

    def batches(self) -> list[np.ndarray]:
        """Requests of each global batch."""
        return np.split(self.order, self.ends[:-1])


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch over a data set.

    group_sizes: (G,) int64 requests of each row group. lengths: (R, 2) int, candidates and
    behaviours of each request. seed: shuffles; None keeps the order on disk.
    """

    group_sizes: np.ndarray
    lengths: np.ndarray
    limits: BatchLimits
    seed: int | None

    def windows(self, epoch: int, done: int = 0) -> Iterator[Window]:
        """What is left of the epoch after its first ``done`` requests."""
        for number, groups in enumerate(self._groups(epoch)):
            size = int(self.group_sizes[groups].sum())
            if done >= size:
                done -= size
                continue
            order = self._requests(groups, epoch, number)[done:]
            done = 0
            yield Window(order, self._cut(order))

    def ends(self, epoch: int, done: int = 0) -> np.ndarray:
        """(steps,) int64: how many requests of the epoch are done after each step."""
        parts = [np.empty(0, dtype=np.int64)]
        for window in self.windows(epoch, done):
            parts.append(window.ends + done)
            done += len(window.order)
        return np.concatenate(parts)

    def _groups(self, epoch: int) -> list[np.ndarray]:
        groups = np.arange(len(self.group_sizes))
        if self.seed is not None:
            groups = np.random.default_rng([self.seed, epoch]).permutation(groups)
        return np.split(groups, range(WINDOW_GROUPS, len(groups), WINDOW_GROUPS))

    def _requests(self, groups: np.ndarray, epoch: int, window: int) -> np.ndarray:
        starts = np.cumsum(self.group_sizes) - self.group_sizes
        order = np.concatenate(
            [np.arange(starts[g], starts[g] + self.group_sizes[g]) for g in groups]
        )
        if self.seed is not None:
            np.random.default_rng([self.seed, epoch, window]).shuffle(order)
        return order

    def _cut(self, order: np.ndarray) -> np.ndarray:
        """Greedy, so that cutting what is left after a batch gives the batches that follow it."""
        most = self.limits.requests
        if self.limits.behaviours is None:
            return np.minimum(np.arange(most, len(order) + most, most), len(order))
        behaviours = np.cumsum(self.lengths[order, 1], dtype=np.int64)
        ends, end, spent = [], 0, 0
        while end < len(order):
            fits = np.searchsorted(behaviours, spent + self.limits.behaviours, side="right")
            end = min(end + most, max(int(fits), end + 1))
            spent = behaviours[end - 1]
            ends.append(end)
        return np.array(ends, dtype=np.int64)


def share_bounds(costs: np.ndarray, world_size: int) -> np.ndarray:
    """Cut a batch into one contiguous share a rank, of nearly equal cost.

    Args:
        costs: (n,) int, positive, of each request in order.

    Returns:
        (world_size + 1,) int64, where shares begin and end; none is empty if n >= world_size.
    """
    total = np.cumsum(costs, dtype=np.float64)
    targets = total[-1] * np.arange(1, world_size) / world_size
    inner = np.searchsorted(total - costs / 2, targets)  # a request goes where its middle lies
    first = np.minimum(np.arange(1, world_size), len(costs))
    last = np.maximum(len(costs) - np.arange(world_size - 1, 0, -1), first)
    inner = np.clip(inner, first, last)
    for rank in range(1, len(inner)):
        inner[rank] = min(max(inner[rank], inner[rank - 1] + 1), last[rank])
    return np.concatenate([[0], inner, [len(costs)]]).astype(np.int64)
