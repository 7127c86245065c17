"""Checkpoints through torch.distributed.checkpoint: tensors only, whole or not at all.

Keys are ``model.<name>`` and ``optimizer.<parameter>.<state>``; sharded tensors are saved by their
owners and land in whatever shards the reader has, so a checkpoint loads under another world size
and another sharding plan.
"""

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.sharding import DistributedModel


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` over all ranks, aside, and put the result in place of ``folder``.

    A reader sees the old checkpoint or the new one, never half of one; a kill between the two
    renames leaves the old one aside, where ``restore`` finds it. Collective.
    """
    name = [f".{folder.name}.{uuid.uuid4().hex}"]
    dist.broadcast_object_list(name)
    aside = folder.parent / name[0]
    dcp.save(dict(tensors), checkpoint_id=str(aside))
    if dist.get_rank() == 0:
        old = _old(folder)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # half removed when a save was killed
            folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def load_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], *, ignore: tuple[str, ...] = ()
) -> None:
    """Fill ``tensors`` in place. Collective.

    Args:
        folder: a checkpoint. tensors: what to fill, by key.
        ignore: keys that start with one of these may be in the checkpoint alone.

    Raises:
        InputError: a key or a shape that the two do not share; all of them are named.
    """
    saved = checkpoint_shapes(folder)
    wrong = (
        [f"{key} is missing" for key in sorted(tensors.keys() - saved.keys())]
        + [
            f"{key} is {tuple(saved[key])}, not {tuple(tensors[key].size())}"
            for key in sorted(tensors.keys() & saved.keys())
            if tuple(saved[key]) != tuple(tensors[key].size())
        ]
        + [
            f"{key} is unknown"
            for key in sorted(saved.keys() - tensors.keys())
            if not key.startswith(ignore)
        ]
    )
    if wrong:
        raise InputError(f"{folder} must fit the model: {'; '.join(wrong)}")
    dcp.load(dict(tensors), checkpoint_id=str(folder))


def read_checkpoint(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Read the keys that start with ``prefix`` whole, prefix cut off. Collective."""
    tensors = {
        key: torch.empty(shape, dtype=dtype)
        for key, (shape, dtype) in _metadata(folder).items()
        if key.startswith(prefix)
    }
    dcp.load(tensors, checkpoint_id=str(folder))
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


def checkpoint_shapes(folder: Path) -> dict[str, torch.Size]:
    """The shape of every tensor in a checkpoint, by key."""
    return {key: shape for key, (shape, _) in _metadata(folder).items()}


def model_tensors(distributed: DistributedModel) -> dict[str, Tensor]:
    """The model's tensors by checkpoint key; filling them fills the model."""
    return {f"model.{name}": tensor for name, tensor in distributed.model.state_dict().items()}


def training_tensors(distributed: DistributedModel) -> dict[str, Tensor]:
    """The model's and the optimizers' tensors by checkpoint key."""
    state = distributed.optimizer.state_dict()["state"]
    return model_tensors(distributed) | {
        f"optimizer.{parameter}.{name}": tensor
        for parameter, entries in state.items()
        for name, tensor in entries.items()
    }


def _metadata(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    if not (folder / ".metadata").is_file():
        raise InputError(f"{folder} must be a checkpoint: no .metadata in it")
    entries: dict[str, Any] = dcp.FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    return {
        key: (entry.size, entry.properties.dtype)
        for key, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def restore(folder: Path, distributed: DistributedModel) -> int:
    """Fill model and optimizers from the last checkpoint of a run, if it has one. Collective.

    Returns:
        How many epochs it had finished; 0 without a checkpoint.
    """
    if dist.get_rank() == 0:
        _undo_killed_save(folder)
    dist.barrier()
    if not folder.is_dir():
        return 0
    epochs = torch.zeros((), dtype=torch.int64)
    distributed.create_optimizer_state()
    load_checkpoint(folder, training_tensors(distributed) | {"epochs": epochs})
    return int(epochs)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _undo_killed_save(folder: Path) -> None:
    """Put the old checkpoint back if it was moved away; remove what was written aside."""
    if not folder.exists() and _old(folder).exists():
        _old(folder).rename(folder)
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
