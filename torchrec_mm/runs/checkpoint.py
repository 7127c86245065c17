"""Reading checkpoints: into the shards of any world size, or whole and without any group."""

import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.runs.storage import IndexedReader, read_index
from torchrec_mm.runs.tensor_shards import ShardLoadPlanner, TensorShards, tensors_of


def load_checkpoint(
    folder: Path,
    shards: Mapping[str, TensorShards],
    *,
    ignore: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
) -> None:
    """Fill ``shards`` in place, whatever the world size and the sharding were. Collective.

    Args:
        folder: a checkpoint. shards: what to fill, by key.
        ignore: keys that start with one of these may be in the checkpoint alone.
        allow: keys that start with one of these may be in either alone, or differ in shape; they
            keep the values they have.

    Raises:
        InputError: a key or a shape that the two do not share, all of them named; or a file of
            the checkpoint is missing or cut short.

    >>> table = torch.nn.EmbeddingBag(10, 4)
    >>> with Checkpointer(folder) as checkpointer:
    ...     checkpointer.save(model_shards(table), Position(step=1))
    >>> other = torch.nn.EmbeddingBag(10, 4)
    >>> load_checkpoint(find_checkpoint(folder).folder, model_shards(other))
    >>> torch.equal(table.weight, other.weight)
    True
    """
    saved = checkpoint_shapes(folder)
    wanted = _of_all_ranks({key: tuple(own.size) for key, own in shards.items()})
    misfits = _misfits(saved, wanted)
    refused = [
        f"{key} {words}"
        for key, words in sorted(misfits.items())
        if not key.startswith(allow) and not (key not in wanted and key.startswith(ignore))
    ]
    if refused:
        raise InputError(f"{folder} must fit the model: {'; '.join(refused)}")
    fitting = {key: own for key, own in shards.items() if key not in misfits}
    _fill(IndexedReader(folder), fitting)


def read_checkpoint(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Read the keys that start with ``prefix`` whole. Needs no process group.

    Args:
        folder: a checkpoint. prefix: "model." for what ``load_state_dict`` of the model takes,
            "optimizer." for its optimizers' state.

    Returns:
        Tensors on the CPU by key, prefix cut off.

    Raises:
        InputError: a file of the checkpoint is missing or cut short.

    >>> with Checkpointer(folder) as checkpointer:
    ...     checkpointer.save(model_shards(torch.nn.EmbeddingBag(10, 4)), Position(step=1))
    >>> read_checkpoint(find_checkpoint(folder).folder, "model.")["weight"].shape
    torch.Size([10, 4])
    """
    tensors = {
        key: torch.empty(entry["size"], dtype=getattr(torch, entry["dtype"]))
        for key, entry in read_index(folder).items()
        if key.startswith(prefix)
    }
    _fill(IndexedReader(folder), {key: TensorShards.of(tensor) for key, tensor in tensors.items()})
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


def read_row_blocks(folder: Path, key: str) -> Iterator[tuple[int, Tensor]]:
    """The rows of one matrix in order, in blocks of what was written together, each with its start.

    Holds one block of about ``tensor_shards.CHUNK_BYTES`` at a time. Needs no process group.
    """
    reader = IndexedReader(folder)
    entry = tensors_of(reader.read_metadata())[key]
    starts = sorted({chunk.offsets[0] for chunk in entry.chunks}) + [entry.size[0]]
    for start, stop in pairwise(starts):
        yield start, read_rows(reader, key, start, stop)


def read_rows(reader: IndexedReader, key: str, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of one tensor, however it was cut. Needs no process group."""
    entry = tensors_of(reader.read_metadata())[key]
    rows = torch.empty((stop - start, *entry.size[1:]), dtype=entry.properties.dtype)
    offsets = (start, *(0 for _ in entry.size[1:]))
    _fill(reader, {key: TensorShards(entry.size, rows.dtype, ((offsets, rows),))})
    return rows


def checkpoint_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a checkpoint, by key."""
    return {key: tuple(entry["size"]) for key, entry in read_index(folder).items()}


def _misfits(
    saved: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """What does not fit, in words, by key."""
    words = {key: "is missing" for key in wanted.keys() - saved.keys()}
    words |= {key: "is unknown" for key in saved.keys() - wanted.keys()}
    for key in saved.keys() & wanted.keys():
        if saved[key] != wanted[key]:
            words[key] = f"is {saved[key]}, not {wanted[key]}"
    return words


def _of_all_ranks(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes by key over all ranks: a table's optimizer state is known to its owners alone."""
    everyone: list[dict] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, shapes)
    return {key: shape for shapes in everyone for key, shape in shapes.items()}


def _fill(reader: IndexedReader, shards: Mapping[str, TensorShards]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no other rank takes part
        dcp.load({}, storage_reader=reader, planner=ShardLoadPlanner(shards), no_dist=True)
