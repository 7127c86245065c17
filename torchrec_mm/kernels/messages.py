"""Messages between the ranks of a host over Unix sockets, in the place of gloo's.

gloo passes each message through two threads of its own, which take as long as a small model's
step. There is no version in Python: where this does not compile, gloo does it.

Shape letters: W ranks.
"""

import ctypes
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from math import prod
from socket import socket

from torch import Tensor

from torchrec_mm.kernels.build import compiled

_DONE, _TIMEOUT, _INTERRUPTED = -1, -2, -3


class Messages:
    """A connection to each other rank. What is sent to a rank, it receives in that order."""

    def __init__(self, sockets: Sequence[socket | None], timeout: timedelta) -> None:
        """Take over the sockets.

        Args:
            sockets: W connected streams, None for this rank. timeout: of waiting for one message.

        Raises:
            RuntimeError: the kernel does not compile here; ask ``compiled`` first.
        """
        kernel = compiled("messages")
        if kernel is None:
            raise RuntimeError("kernel messages does not compile here")
        self.sockets, self.timeout = sockets, timeout
        self.wait_ms = ctypes.c_int64(int(timeout.total_seconds() * 1000))
        self.rank = [other is None for other in sockets].index(True)
        self.waiting: deque[Message] = deque()
        self.pointers, self.sizes = ctypes.c_void_p * len(sockets), ctypes.c_int64 * len(sockets)
        self.kernel = kernel
        kernel.open_ranks.restype = ctypes.c_void_p
        kernel.post.restype = kernel.receive.restype = ctypes.c_int64
        descriptors = [-1 if other is None else other.fileno() for other in sockets]
        opened = kernel.open_ranks((ctypes.c_int32 * len(sockets))(*descriptors), len(sockets))
        self.opened = ctypes.c_void_p(opened)

    def __del__(self) -> None:
        if hasattr(self, "opened"):
            self.kernel.close_ranks(self.opened)
            for other in self.sockets:
                if other is not None:
                    other.close()

    def all_to_all(
        self, came: Tensor, sent: Tensor, from_ranks: Sequence[int], to: Sequence[int]
    ) -> "Message":
        """Begin what ``torch.distributed.all_to_all_single`` does.

        Args:
            came, sent: contiguous, on the CPU; rows of one size. from_ranks, to: W rows each.

        Returns:
            Whose ``wait`` fills ``came``. ``sent`` may be changed at once.

        Raises:
            RuntimeError: a rank has gone.
        """
        message = Message(self, came, from_ranks)
        pointers, sizes = self._parts(sent, to)
        here, begin = self.rank, sum(to[: self.rank])
        message.part_of(here).copy_(sent[begin : begin + to[here]])
        self._check(self.kernel.post(self.opened, pointers, sizes))
        self.waiting.append(message)
        return message

    def sum(self, values: Tensor) -> None:
        """Sum over ranks, in their order: the same bits on all of them. Collective.

        ``values``: (n,) contiguous, on the CPU; replaced.
        """
        ranks = len(self.sockets)
        cuts = [len(values) * rank // ranks for rank in range(ranks + 1)]
        parts = [end - begin for begin, end in zip(cuts, cuts[1:], strict=False)]
        mine = parts[self.rank]
        came = values.new_empty(ranks * mine)
        self.all_to_all(came, values, [mine] * ranks, parts).wait()
        summed = came.view(ranks, mine).sum(0)
        self.all_to_all(values, summed.repeat(ranks), parts, [mine] * ranks).wait()

    def receive(self, message: "Message") -> None:
        """Wait for a message and all that were begun before it."""
        while not message.is_here:
            first = self.waiting[0]
            pointers, sizes = self._parts(first.came, first.from_ranks)
            # Else another rank might wait for the rest of it while this one is elsewhere.
            flushes = ctypes.c_int32(len(self.waiting) == 1)
            found = _INTERRUPTED
            while found == _INTERRUPTED:  # in between Python looks whether the signal ends it
                found = self.kernel.receive(self.opened, pointers, sizes, flushes, self.wait_ms)
            self._check(found)
            first.is_here = True
            self.waiting.popleft()

    def _parts(self, rows: Tensor, counts: Sequence[int]) -> tuple[ctypes.Array, ctypes.Array]:
        """Where each rank's rows are, and how many bytes."""
        size = rows.element_size() * prod(rows.shape[1:])
        pointers, sizes = self.pointers(), self.sizes()
        place = rows.data_ptr()
        for rank, count in enumerate(counts):
            pointers[rank], sizes[rank] = place, count * size
            place += count * size
        if place != rows.data_ptr() + rows.nbytes or not rows.is_contiguous():
            raise ValueError(f"rows must be contiguous and as many as {list(counts)}")
        return pointers, sizes

    def _check(self, found: int) -> None:
        if found == _TIMEOUT:
            raise RuntimeError(f"a rank must send within {self.timeout}")
        if found != _DONE:
            raise RuntimeError(f"connection closed by peer, rank {found}")


class Message:
    """One that all ranks send to each other."""

    def __init__(self, messages: Messages, came: Tensor, from_ranks: Sequence[int]) -> None:
        self.messages, self.came, self.from_ranks = messages, came, from_ranks
        self.is_here = False

    def part_of(self, rank: int) -> Tensor:
        """The rows of one rank."""
        begin = sum(self.from_ranks[:rank])
        return self.came[begin : begin + self.from_ranks[rank]]

    def wait(self) -> None:
        """Until ``came`` is there.

        Raises:
            RuntimeError: a rank has gone, or said nothing for too long.
        """
        self.messages.receive(self)
