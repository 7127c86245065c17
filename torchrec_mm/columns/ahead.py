"""Work on pieces in several threads; what comes out comes in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")

MOST_THREADS = 8  # each holds what it has made until its turn comes
END = object()


def in_order(pieces: Iterable[Iterator[T]]) -> Iterator[T]:
    """All that the pieces give, piece by piece, as if they were chained.

    As many threads as Arrow takes, at most ``MOST_THREADS``, work on a piece each, and no more
    than one value ahead of what has been taken: memory is bounded whatever the pieces give. What
    a piece raises is raised when its turn comes.
    """
    remaining = iter(pieces)
    threads = min(MOST_THREADS, pa.cpu_count())
    open_pieces: deque[tuple[Iterator[T], Future]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for piece in islice(remaining, threads - len(open_pieces)):
                    open_pieces.append((piece, pool.submit(next, piece, END)))
                if not open_pieces:
                    return
                piece, future = open_pieces.popleft()
                value = future.result()
                if value is not END:
                    open_pieces.appendleft((piece, pool.submit(next, piece, END)))
                    yield value
        finally:
            for _, future in open_pieces:
                future.cancel()
