"""A rank's batches: its share of every step's requests, read ahead of the training."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from torchrec_mm.data.encoded.encoded import RequestArrays, RowGroup
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.epoch import EpochOrder, share_bounds

READ_AHEAD = 2  # batches made while the model works on one
AT_ONCE = 1000  # impressions, of small batches several: work with vectors begins with a millisecond
# Of small batches many are picked from a window at once: each column costs a call of NumPy's.
PICKED_VALUES = 1 << 18
COLUMNS = 32  # about as many values of a request as lists of it are not

# Requests of a batch, its loss weight, whether it is only there to be masked.
Share: TypeAlias = tuple[RequestArrays, float, bool]
# Which requests a batch has, and their candidates; whether it is masked, and what it weighs.
Wanted: TypeAlias = tuple[np.ndarray, np.ndarray, bool, float | None]

# What each step of a window has, and the requests that it picks them from.
Picking: TypeAlias = tuple[list[Wanted], RequestArrays]
Item = TypeVar("Item")

# Held while a batch is made. Whoever changes what modules do in all threads, as torch.fx does while
# it traces a model, takes it first: a collator may call modules too.
COLLATING = threading.Lock()


class RequestData(Protocol):
    """Requests by row group, as ``EncodedRequests`` has them; it says what each of these is."""

    @property
    def groups(self) -> Sequence[RowGroup]: ...
    @property
    def group_starts(self) -> np.ndarray: ...
    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def weight_sums(self) -> np.ndarray | None: ...
    def read(self, group: RowGroup) -> RequestArrays: ...


class RequestLoader:
    """Batches of one rank, in an order that every rank derives alike (see ``EpochOrder``).

    Each global batch is cut into one contiguous share a rank, of nearly equal numbers of
    impressions. All ranks take the same number of steps, no request is dropped or seen twice, and
    the global batches do not depend on the number of ranks. Where a batch holds fewer requests
    than there are ranks, the ranks without one get a request whose candidates are masked out.

    Streams: holds the row groups of two windows that this rank has requests in, one to pick from
    and the next, which is read meanwhile.
    """

    def __init__(
        self,
        data: RequestData,
        collator: Collator,
        limits: BatchLimits,
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle_seed: int | None = None,
        pin_memory: bool = False,
        collate_ahead: bool = True,
    ) -> None:
        """Prepare to iterate.

        Args:
            data: what to iterate over. collator: makes requests a batch. limits: of a global batch.
            rank, world_size: whose share this is. shuffle_seed: None keeps the order on disk.
            pin_memory: put batches where CUDA can copy them from while it computes.
            collate_ahead: make batches ahead too. False only reads ahead, and calls the collator
                where the batches are asked for, as a collator that is collective needs.
        """
        self.data = data
        self.collator = collator
        self.rank = rank
        self.world_size = world_size
        self.shuffle_seed = shuffle_seed
        self.pin_memory = pin_memory
        self.collate_ahead = collate_ahead
        sizes = np.array([group.num_requests for group in data.groups], dtype=np.int64)
        self.order = EpochOrder(sizes, data.lengths, limits, shuffle_seed)
        self._begun: tuple[range, Iterator[Picking | None]] | None = None

    def ends(self, epoch: int, *, done: int = 0) -> np.ndarray:
        """(steps,) int64: requests of the epoch that are done after each step left."""
        return self.order.ends(epoch, done=done)

    def epoch(self, epoch: int, *, done: int = 0, until: int = 0) -> Iterator[RequestBatch]:
        """This rank's batches of one epoch, without those of its first ``done`` requests.

        The order depends on seed and epoch alone. ``until``: epochs up to there will be asked for,
        each in its turn, so that the next one's first window is read while this one ends.
        """
        epochs = range(epoch, max(until, epoch + 1))
        if self.collate_ahead:
            return read_ahead(lambda: self._collated(self._picked(epochs, done)), READ_AHEAD)
        return self._collated(read_ahead(lambda: self._picked(epochs, done), READ_AHEAD))

    def _collated(
        self, picked: Iterable[tuple[RequestArrays, list[Wanted]]]
    ) -> Iterator[RequestBatch]:
        for group in self._groups(self._shares(picked)):
            with COLLATING:
                compared = self.collator.compare(
                    [share.without_candidates() if empty else share for share, _, empty in group]
                )
            for (share, loss_weight, is_empty), found in zip(group, compared, strict=True):
                with COLLATING:
                    batch = self.collator(share, loss_weight, masked=is_empty, compared=found)
                yield batch.pin_memory() if self.pin_memory else batch
                del share, batch

    def _groups(self, shares: Iterable[Share]) -> Iterator[list[Share]]:
        """Those whose vectors are compared at once; one by one where that is collective."""
        group: list[Share] = []
        impressions = 0
        for share in shares:
            group.append(share)
            impressions += len(share[0].labels)
            if not self.collate_ahead or impressions >= AT_ONCE:
                yield group
                group, impressions = [], 0
        if group:
            yield group

    def _shares(self, picked: Iterable[tuple[RequestArrays, list[Wanted]]]) -> Iterator[Share]:
        for arrays, steps in picked:
            begin = 0
            for rows, candidates, is_empty, total in steps:
                share = arrays.slice(begin, begin + len(rows))
                begin += len(rows)
                if len(share) == 1:  # may be a piece
                    share = share.cut(*candidates[0])
                if total is None:
                    assert share.weights is not None  # else the impressions were counted
                    total = float(share.weights.sum(dtype=np.float64))
                # Nothing is learned from impressions that weigh nothing.
                yield share, self.world_size / total if total else 0.0, is_empty
            del arrays, share

    def _picked(self, epochs: range, done: int) -> Iterator[tuple[RequestArrays, list[Wanted]]]:
        """Requests of several steps one after another, and what each step has of them.

        Of the first of ``epochs``; the next one has been begun when it ends.
        """
        for steps, arrays in self._of_epoch(epochs, done):
            for group in self._picked_at_once(steps):
                rows = np.concatenate([rows for rows, *_ in group])
                yield arrays.take(np.searchsorted(arrays.rows, rows)), group
            del arrays

    def _of_epoch(self, epochs: range, done: int) -> Iterator[Picking]:
        """Windows of the first of ``epochs``, which the one before may have begun to read."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != epochs or done:
            begun = epochs, one_ahead(self._windows(epochs, done))
        for window in begun[1]:
            if window is None:
                break
            yield window
            del window
        if epochs[1:]:
            self._begun = epochs[1:], begun[1]

    def _windows(self, epochs: range, done: int) -> Iterator[Picking | None]:
        """What each step of a window has, and the requests that it picks them from.

        None after each epoch.
        """
        for epoch in epochs:
            for window in self.order.windows(epoch, done=done):
                steps = [self._share_of_rank(*part) for part in window.parts()]
                yield steps, self._read([rows for rows, *_ in steps])
            yield None
            done = 0

    def _picked_at_once(self, steps: list[Wanted]) -> Iterator[list[Wanted]]:
        values = [int(self.data.lengths[rows].sum()) + COLUMNS * len(rows) for rows, *_ in steps]
        group = np.cumsum(values) // PICKED_VALUES
        ends = [*(np.flatnonzero(np.diff(group)) + 1), len(steps)]
        return (steps[begin:end] for begin, end in pairwise([0, *ends]))

    def _share_of_rank(self, rows: np.ndarray, candidates: np.ndarray) -> Wanted:
        """This rank's requests and their candidates, of a global batch's.

        Also whether they are only there to be masked, and what the global batch weighs: None where
        it is a lone request with weights, of which it may be a piece that every rank reads.
        """
        order = np.argsort(rows)  # by row group: a rank touches few of the window's
        rows, candidates = rows[order], candidates[order]
        costs = candidates[:, 1] - candidates[:, 0]
        bounds = share_bounds(costs, self.world_size)
        mine = slice(bounds[self.rank], bounds[self.rank + 1])
        is_empty = mine.start == mine.stop
        if is_empty:
            mine = slice(0, 1)
        total: float | None = float(costs.sum())
        if self.data.weight_sums is not None:
            total = float(self.data.weight_sums[rows, 0].sum()) if len(rows) > 1 else None
        return rows[mine], candidates[mine], is_empty, total

    def _read(self, shares: list[np.ndarray]) -> RequestArrays:
        """The row groups that hold the requests of ``shares``, in file order."""
        starts = self.data.group_starts
        touched = np.unique(np.searchsorted(starts, np.concatenate(shares), side="right") - 1)
        return RequestArrays.concatenate([self.data.read(self.data.groups[g]) for g in touched])


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in another thread while that before is used.

    One besides that is held at most. What making one raises is raised in its turn; leaving early
    waits until the one that is being made is done.
    """
    with ThreadPoolExecutor(1, "one_ahead") as pool:
        coming = pool.submit(list, islice(items, 1))
        while made := coming.result():
            coming = pool.submit(list, islice(items, 1))
            yield made.pop()


def read_ahead(make: Callable[[], Iterator], depth: int) -> Iterator:
    """Run an iterator in a thread of its own, up to ``depth`` items ahead of the consumer.

    What it raises is raised here, in its turn. Leaving early stops the thread.
    """
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in make():
                if not put("item", item):
                    return
        except BaseException as error:  # handed to the consumer, whatever it is
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=produce, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        stopped.set()
        thread.join()
