"""Work on pieces in several threads; what comes out comes in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")

MOST_THREADS = 8  # each holds what it has made until its turn comes


def in_order(pieces: Iterable[Iterator[T]], at_once: int = 1) -> Iterator[T]:
    """All that the pieces give, piece by piece, as if they were chained.

    As many threads as Arrow takes, at most ``MOST_THREADS``, work on a piece each, and no more
    than ``at_once`` values ahead of what has been asked for: memory is bounded however long a
    piece is. What a piece raises is raised when its turn comes.
    """
    remaining = iter(pieces)
    threads = min(MOST_THREADS, pa.cpu_count())
    opened: deque[tuple[Iterator[T], Future[list[T]]]] = deque()

    def begun(piece: Iterator[T]) -> tuple[Iterator[T], Future[list[T]]]:
        return piece, pool.submit(list, islice(piece, at_once))

    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                opened.extend(map(begun, islice(remaining, threads - len(opened))))
                if not opened:
                    return
                piece, future = opened.popleft()
                values = future.result()
                if len(values) == at_once:
                    opened.appendleft(begun(piece))
                yield from values
        finally:
            for _, future in opened:
                future.cancel()
