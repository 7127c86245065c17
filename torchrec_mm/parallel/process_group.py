"""Join the other ranks, or be the only one: the one place that picks device and backend."""

import gc
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from torchrec_mm import gpus
from torchrec_mm.environment import choice
from torchrec_mm.errors import HostError, InputError
from torchrec_mm.parallel.cuda.modes import use_tf32

__all__ = ["gather_rows"]  # for others; the rest is for the rooms of this project

# Ranks wait for one that works alone, however long it takes.
LONG_WORK_TIMEOUT = timedelta(days=7)
# Of any other operation of all ranks; NCCL's own would be 10 minutes.
COLLECTIVE_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Worker:
    """This process among its peers.

    device: where its tensors live. rank: in [0, world_size). world_size: number of processes.
    """

    device: torch.device
    rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes files and shows progress."""
        return self.rank == 0


@contextmanager
def process_group() -> Iterator[Worker]:
    """Initialise torch.distributed for the block and take it down afterwards.

    One rank of several whose block raises leaves the group as it is, see ``config.run``.

    Under torchrun or torchx the ranks meet through the environment they were given. Without it
    this process is alone: world size 1 and an in-memory store, so no port is needed. NCCL with
    one CUDA device per local rank where CUDA works, gloo on the CPU otherwise.

    Raises:
        HostError: more ranks than GPUs on this host, or GPUs that cannot be computed on.
    """
    device = _device()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    use_tf32(False, device)
    worker = Worker(device, dist.get_rank(), dist.get_world_size())
    try:
        yield worker
    except SystemExit:  # all ranks have agreed to stop
        _take_down()
        raise
    except BaseException:
        # Others may be in the middle of an operation that this rank has left: taking the group
        # down would wait for them, and they wait for it. The process ends as it is.
        if worker.world_size == 1:
            _take_down()
        raise
    _take_down()


def _take_down() -> None:
    dist.destroy_process_group()
    # What is left in reference cycles holds the group, whose threads then end together with the
    # interpreter: a rank that has done all its work may abort.
    gc.collect()


def usable_gpus() -> int:
    """How many GPUs the ranks of this host may take; 0: they compute on the CPU.

    Raises:
        HostError: there are GPUs, but something keeps torch or fbgemm from computing on them.
    """
    if choice() == "cpu":
        return 0
    found = gpus.count()
    problem = gpus.build_problem() if found else gpus.driver_problem()
    if problem and torch.version.cuda:
        raise HostError(problem)
    return found


def _device() -> torch.device:
    found = usable_gpus()
    if not found:
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if max(ranks, local_rank + 1) > found:
        nodes = os.environ.get("GROUP_WORLD_SIZE", "1")
        raise HostError(
            f"ranks on {platform.node()} must be at most its GPUs, {found}, got "
            f"{max(ranks, local_rank + 1)}. Cure: -j {nodes}x{found} --gpu {found}, "
            f"--nproc-per-node {found} or --processes {found}; {gpus.ON_THE_CPU}"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


@contextmanager
def reserve_reader_core(is_busy: bool = True) -> Iterator[None]:
    """For the block: one thread less for PyTorch, if it has several.

    The thread that reads batches ahead needs a core of its own, if it ``is_busy``: where it has to
    take one from PyTorch's threads, these wait for each other in every operation. One that only
    reads rows takes a tenth of a core; one that works with vectors, most of it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - is_busy))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks in rank order, without gradient. Collective; a process may be alone.

    Args:
        rows: (B, ...) any dtype, of the same shape on every rank.

    Returns:
        (world_size * B, ...); ``rows`` itself where there is one rank or no process group.

    >>> gather_rows(torch.tensor([[3, 1]]))
    tensor([[3, 1]])
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def copy_from_first_rank(tensors: Iterable[torch.Tensor]) -> None:
    """Fill tensors, of the same shapes on every rank, with the first rank's. Collective.

    For what ranks could compute alike, were their devices and libraries alike.
    """
    if dist.get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def host_group(timeout: timedelta | None = None) -> dist.ProcessGroup:
    """A group of all ranks for what lies in their hosts' memory, whatever the devices. Collective.

    ``timeout``: of each of its collectives; torch's own if None.
    """
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)  # else this rank were not in it
    return group


@contextmanager
def host_folder(worker: Worker) -> Iterator[tuple[Path, bool]]:
    """A new folder on this host's own disk, for the block. Collective.

    It goes when the block ends; the ranks must have passed a barrier in it by then. What they have
    mapped of it stays, as the disk is no other host's.

    Yields:
        the folder, of the first rank on this host, and whether this rank is that one.
    """
    is_writer = os.environ.get("LOCAL_RANK", "0") == "0"
    made = tempfile.mkdtemp(prefix="torchrec_mm.") if is_writer else ""
    folders = [made] * worker.world_size
    try:
        if worker.world_size > 1:
            dist.all_gather_object(folders, made)
        # Ranks are numbered host after host.
        yield Path(next(filter(None, reversed(folders[: worker.rank + 1])))), is_writer
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def on_first_rank(work: Callable[[], None]) -> None:
    """Call ``work`` on rank 0 while others wait; its InputError comes on every rank. Collective."""
    problem: list[str | None] = [None]
    together = host_group(LONG_WORK_TIMEOUT)
    if dist.get_rank() == 0:
        try:
            work()
        except InputError as error:
            problem = [str(error)]
    dist.broadcast_object_list(problem, group=together)
    dist.destroy_process_group(together)
    if problem[0] is not None:
        raise InputError(problem[0])
