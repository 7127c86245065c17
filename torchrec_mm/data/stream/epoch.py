"""Which requests make up each step of an epoch: the same for every rank and any world size.

Row groups are permuted, and requests shuffled within windows of a few row groups, so that a reader
streams and holds one window at a time. A window is cut greedily into global batches, and a batch
never straddles two windows. A request that is too long for any batch comes in pieces, each a batch
of its own. All of it follows from the requests' lengths, the seed and the epoch; so ranks agree on
the number of steps without a word, and a position in the epoch, counted in requests (a request in
pieces counts once a piece), means the same to any number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from torchrec_mm.data.stream.batch_limits import BatchLimits

WINDOW_GROUPS = 16


@dataclass(frozen=True)
class Window:
    """The batches that are cut from one window of row groups.

    order: (n,) int64 requests in the order of training, a request in pieces once a piece.
    candidates: (n, 2) int64, first and end of the candidates that belong there: all, or a piece.
    ends: (steps,) int64, where each global batch ends in ``order``.
    """

    order: np.ndarray
    candidates: np.ndarray
    ends: np.ndarray

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Requests of each global batch, and their candidates."""
        begin = 0
        for end in self.ends.tolist():
            yield self.order[begin:end], self.candidates[begin:end]
            begin = end


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch over a data set.

    group_sizes: (G,) int64 requests of each row group. lengths: (R, 2 + sequences) int, candidates
    and behaviours of each request, and those of each further sequence. seed: shuffles; None keeps
    the order on disk.
    """

    group_sizes: np.ndarray
    lengths: np.ndarray
    limits: BatchLimits
    seed: int | None

    def windows(self, epoch: int, *, done: int = 0) -> Iterator[Window]:
        """What is left of the epoch after its first ``done`` requests."""
        for window, groups in enumerate(self._groups(epoch)):
            size = self._size(groups)
            if done >= size:
                done -= size
                continue
            order, candidates = self._pieces(self._requests(groups, epoch, window))
            order, candidates = order[done:], candidates[done:]
            done = 0
            yield Window(order, candidates, self._cut(order, candidates))

    def ends(self, epoch: int, *, done: int = 0) -> np.ndarray:
        """(steps,) int64: how many requests of the epoch are done after each step."""
        parts = [np.empty(0, dtype=np.int64)]
        for window in self.windows(epoch, done=done):
            parts.append(window.ends + done)
            done += len(window.order)
        return np.concatenate(parts)

    def _groups(self, epoch: int) -> list[np.ndarray]:
        groups = np.arange(len(self.group_sizes))
        if self.seed is not None:
            groups = np.random.default_rng([self.seed, epoch]).permutation(groups)
        return np.split(groups, range(WINDOW_GROUPS, len(groups), WINDOW_GROUPS))

    def _on_disk(self, groups: np.ndarray) -> np.ndarray:
        ends = np.cumsum(self.group_sizes)
        return np.concatenate([np.arange(ends[g] - self.group_sizes[g], ends[g]) for g in groups])

    def _requests(self, groups: np.ndarray, epoch: int, window: int) -> np.ndarray:
        order = self._on_disk(groups)
        if self.seed is not None:
            np.random.default_rng([self.seed, epoch, window]).shuffle(order)
        return order

    def _size(self, groups: np.ndarray) -> int:
        """How many requests, or pieces of them, there are."""
        if not self._has_pieces:
            return int(self.group_sizes[groups].sum())
        return int(self._num_pieces(self._on_disk(groups)).sum())

    def _pieces(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Requests, each as often as it has pieces, and the candidates of each piece."""
        total = self.lengths[order, 0].astype(np.int64)
        if not self._has_pieces:
            return order, np.stack([np.zeros_like(total), total], axis=1)
        count = self._num_pieces(order)
        piece = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        order, total, count = (np.repeat(x, count) for x in (order, total, count))
        bounds = np.stack([piece, piece + 1], axis=1)
        return order, bounds * total[:, None] // count[:, None]

    def _num_pieces(self, requests: np.ndarray) -> np.ndarray:
        return self.limits.num_pieces(*compared(self.lengths[requests]))

    @cached_property
    def _longest(self) -> np.ndarray:
        """(2 + sequences,) the most of each of a request."""
        return np.array([column.max(initial=0) for column in self.lengths.T])

    @cached_property
    def _has_pieces(self) -> bool:
        return bool(self.limits.num_pieces(*compared(self._longest[None])) > 1)

    def _cut(self, order: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        total, behaviours = compared(self.lengths[order])
        whole = candidates[:, 1] - candidates[:, 0] == total
        return self.limits.cut(np.where(whole, total, np.inf), behaviours)


def compared(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) candidates of requests with such ``lengths``, and (n,) behaviours.

    Of several sequences, each counts as much as the longest: together they are padded to no more.
    """
    candidates, *sequences = lengths.T
    return candidates, len(sequences) * np.maximum.reduce(sequences)


def share_bounds(costs: np.ndarray, world_size: int) -> np.ndarray:
    """Cut a batch into one contiguous share a rank, of nearly equal cost.

    ``costs``: (n,) int, positive, of each request in order.

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
