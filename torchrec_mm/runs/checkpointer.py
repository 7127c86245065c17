"""Saves a run while it goes on: a copy in host memory, and a thread that writes it to disk.

Training waits for the copy alone. The thread's collectives have a process group of their own, on
gloo, so they never meet training's.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import host_group
from torchrec_mm.runs.checkpoint_folders import (
    aside_of,
    complete_checkpoint,
    folder_of,
    remove_leftovers,
    remove_old,
    write_state,
)
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.storage import IndexedWriter
from torchrec_mm.runs.tensor_shards import ShardSavePlanner, TensorShards


class Checkpointer:
    """Writes checkpoints of a run, one at a time; all methods are collective.

    A folder ``step-N`` is whole once it has that name, whoever is killed when. As a context it
    waits for the last one when the block ends; when the block raises, it waits too, and lets the
    block's exception through. Ranks are those of torch.distributed's default group, which may be
    one; they must all see the folder.

    >>> table = torch.nn.EmbeddingBag(10, 4)
    >>> with Checkpointer(folder) as checkpointer:
    ...     checkpointer.save(model_shards(table), Position(step=1))
    >>> sorted(read_checkpoint(find_checkpoint(folder).folder, "model."))
    ['weight']
    """

    def __init__(self, folder: Path, keep: int = 1, keep_published: int = 0) -> None:
        """Remove what a killed run left behind.

        Args:
            folder: of the checkpoints alone; made if need be. keep: how many stay besides the best,
                at least 1. keep_published: of those that scorers may take, how many stay besides.
        """
        self.folder, self.keep, self.keep_published = folder, keep, keep_published
        self.is_first = dist.get_rank() == 0
        if self.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        self.group = host_group()
        self.host_copy = HostCopy()
        self.thread = ThreadPoolExecutor(1, "checkpoint", initializer=same_device())
        self.writing: Future[str | None] | None = None
        dist.barrier()

    def reserve(self, shards: Mapping[str, TensorShards]) -> None:
        """Have the memory of what ``save`` will copy, pinned where there is a GPU.

        A host that lacks it says so before the first step, and no save waits for pages to be
        pinned, which takes seconds for tens of GB.
        """
        self.host_copy.reserve(shards)

    def save(
        self,
        shards: Mapping[str, TensorShards],
        position: Position,
        metric: float | None = None,
        config_files: Sequence[Path] = (),
        is_published: bool = True,
    ) -> None:
        """Copy ``shards`` and return; the copy is written meanwhile.

        Waits for the checkpoint before, should it still be in flight. Where that step is saved
        already, as by a run that was stopped between an epoch's last step and its end, the tensors
        stay, and ``position`` and ``metric`` are written anew.

        Args:
            shards: this rank's part of each tensor. position: names the checkpoint.
            metric: what the best is chosen by, higher is better, or None.
            config_files: small files to copy beside the tensors.
            is_published: whether scorers may take it.

        Raises:
            InputError: the checkpoint before could not be written.
        """
        self.wait()
        copied = self.host_copy.take(shards)
        said = (position, metric, config_files, is_published)
        self.writing = self.thread.submit(self._write, copied, *said)

    def wait(self) -> None:
        """Return once nothing is in flight; InputError if a rank failed; older ones stay."""
        writing, self.writing = self.writing, None
        if writing is not None and (problem := writing.result()):
            raise InputError(problem)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except InputError:
            if error is None:
                raise
        finally:
            self.thread.shutdown()
            dist.destroy_process_group(self.group)

    def _write(
        self,
        shards: Mapping[str, TensorShards],
        position: Position,
        metric: float | None,
        config_files: Sequence[Path],
        is_published: bool,
    ) -> str | None:
        """What went wrong, in words, the same on every rank."""
        aside, whole = (of(self.folder, position.step) for of in (aside_of, folder_of))
        problem: list[str | None] = [None]
        is_saved = whole.exists()
        try:
            if not is_saved:
                dcp.save(
                    {},
                    storage_writer=IndexedWriter(aside),
                    planner=ShardSavePlanner(shards),
                    process_group=self.group,
                )
            if self.is_first:
                if is_saved:
                    write_state(whole, position, metric, is_published)
                else:
                    complete_checkpoint(aside, position, metric, config_files, is_published)
                remove_old(self.folder, self.keep, self.keep_published)
        except CheckpointException as error:
            rank, (cause, _) = min(error.failures.items())
            if not isinstance(cause, OSError):
                raise
            problem = [f"rank {rank}: {cause}"]
        except OSError as error:
            problem = [f"rank 0: {error.strerror}"]
        dist.broadcast_object_list(problem, 0, group=self.group)
        if problem[0] is None:
            return None
        if self.is_first:
            shutil.rmtree(aside, ignore_errors=True)
        return (
            f"{self.folder} must have room for the checkpoint of step {position.step}, got on "
            f"{problem[0]}; those before it are whole"
        )


def same_device() -> Callable[[], None]:
    """What makes another thread work on this one's GPU: a thread begins on the first one."""
    if not torch.cuda.is_initialized():
        return lambda: None
    return partial(torch.cuda.set_device, torch.cuda.current_device())


class HostCopy:
    """Buffers in host memory, pinned where there is a GPU; made once, filled at each save.

    One a chunk: DCP copies a tensor once more where it is a part of a larger buffer.
    """

    def __init__(self) -> None:
        self.buffers: dict[str, list[Tensor]] = {}

    def reserve(self, shards: Mapping[str, TensorShards]) -> None:
        """Make the buffers of shards that have none."""
        for key, own in shards.items():
            if key not in self.buffers:
                self.buffers[key] = [
                    torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                    for _, tensor in own.chunks()
                ]

    def take(self, shards: Mapping[str, TensorShards]) -> dict[str, TensorShards]:
        """The shards as they are now; what was taken before is overwritten."""
        self.reserve(shards)
        copied = {key: self._copy(key, own) for key, own in shards.items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copy(self, key: str, own: TensorShards) -> TensorShards:
        parts = []
        for (offsets, tensor), buffer in zip(own.chunks(), self.buffers[key], strict=True):
            parts.append((offsets, buffer.copy_(tensor, non_blocking=True)))
        return TensorShards(own.size, own.dtype, tuple(parts))
