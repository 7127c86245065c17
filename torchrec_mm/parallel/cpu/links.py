"""How the ranks on CPUs reach each other within a step: Unix sockets on one host, else gloo."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.messages import Messages
from torchrec_mm.parallel.process_group import COLLECTIVE_TIMEOUT, Worker, host_folder

RANK_BYTES = 4


class Waits(Protocol):
    """A message on its way."""

    def wait(self) -> object: ...


class Links(Protocol):
    """Connections to all other ranks; every method is collective."""

    def all_to_all(
        self, came: Tensor, sent: Tensor, from_ranks: Sequence[int], to: Sequence[int]
    ) -> Waits:
        """Begin to send rows; ``came`` is filled when ``wait`` returns."""

    def sum(self, values: Tensor) -> None:
        """Replace (n,) values by their sum over ranks, the same bits on all."""


class Gloo:
    """torch.distributed's own."""

    def all_to_all(
        self, came: Tensor, sent: Tensor, from_ranks: Sequence[int], to: Sequence[int]
    ) -> dist.Work:
        work = dist.all_to_all_single(came, sent, list(from_ranks), list(to), async_op=True)
        assert work is not None  # this rank is in the group
        return work

    def sum(self, values: Tensor) -> None:
        dist.all_reduce(values)


def connect(worker: Worker) -> Links:
    """The shortest way to the other ranks of a model on CPUs. Collective."""
    sockets: list[socket.socket | None] | None = None
    if os.environ.get("LOCAL_WORLD_SIZE") == str(worker.world_size):
        with host_folder(worker) as (folder, _):
            sockets = _meet(folder, worker)
    return Gloo() if sockets is None else Messages(sockets, COLLECTIVE_TIMEOUT)


def _meet(folder: Path, worker: Worker) -> list[socket.socket | None] | None:
    """A socket to each other rank, through a folder of this user's alone; None if one has none."""
    with socket.socket(socket.AF_UNIX) as listening:
        can = compiled("messages") is not None
        try:
            listening.bind(str(folder / str(worker.rank)))
            listening.listen(worker.world_size)
        except OSError:  # a path that is too long for a socket
            can = False
        all_can = torch.tensor(int(can))
        dist.all_reduce(all_can, op=dist.ReduceOp.MIN)
        if not all_can:
            return None
        found = {}
        for rank in range(worker.rank):
            found[rank] = socket.socket(socket.AF_UNIX)
            found[rank].connect(str(folder / str(rank)))
            found[rank].sendall(worker.rank.to_bytes(RANK_BYTES, "big"))
        for _ in range(worker.rank + 1, worker.world_size):
            accepted, _ = listening.accept()
            rank = int.from_bytes(accepted.recv(RANK_BYTES, socket.MSG_WAITALL), "big")
            found[rank] = accepted
        dist.barrier()  # before the folder goes
    return [found.get(rank) for rank in range(worker.world_size)]
