"""A checkpoint's files: torch.distributed.checkpoint's own, and an index of them in JSON.

``.metadata`` is a pickle, which could run code when read. It is written, so that any tool for
such checkpoints reads ours, and never opened: ``index.json`` says the same.
"""

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from torch.serialization import get_crc32_options, set_crc32_options

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.runs.tensor_shards import tensors_of

INDEX = "index.json"


class IndexedWriter(FileSystemWriter):
    """Writes each rank's chunks to one file, flushed to disk, and the index of all."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        checksums = get_crc32_options()
        set_crc32_options(False)  # a third of the time, and no reader looks at them
        try:
            return super().write_data(plan, planner)
        except (OSError, RuntimeError) as error:  # torch's writer wraps what the disk says
            raise OSError(_what_the_disk_says(error)) from error
        finally:
            set_crc32_options(checksums)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        # The index comes last: what has one has all the rest.
        stored = {
            key: {
                "dtype": str(entry.properties.dtype).removeprefix("torch."),
                "size": list(entry.size),
                "chunks": [
                    _stored_chunk(chunk, metadata.storage_data[MetadataIndex(key, chunk.offsets)])
                    for chunk in entry.chunks
                ],
            }
            for key, entry in tensors_of(metadata).items()
        }
        # On one line: of a large table, an entry a chunk, most of it would be indentation.
        write_json(Path(self.path) / INDEX, {"format": 1, "tensors": stored}, indent=None)


class IndexedReader(FileSystemReader):
    """Reads what IndexedWriter wrote.

    Raises:
        InputError: the folder is no checkpoint, or lacks a file or a part of one.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata

    @cached_property  # a table that is read block by block asks for it once a block
    def _metadata(self) -> Metadata:
        tensors: dict[str, STORAGE_TYPES] = {}
        storage: dict[MetadataIndex, _StorageInfo] = {}
        for key, entry in read_index(Path(self.path)).items():
            chunks = []
            for chunk in entry["chunks"]:
                offsets = torch.Size(chunk["offsets"])
                chunks.append(ChunkStorageMetadata(offsets, torch.Size(chunk["sizes"])))
                storage[MetadataIndex(key, offsets)] = _StorageInfo(
                    chunk["file"], chunk["start"], chunk["bytes"]
                )
            tensors[key] = TensorStorageMetadata(
                TensorProperties(dtype=getattr(torch, entry["dtype"])),
                torch.Size(entry["size"]),
                chunks,
            )
        return Metadata(tensors, storage_data=storage, storage_meta=StorageMeta())


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Dtype, size and chunks of every tensor by key, all of it there to be read."""
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder} must be a checkpoint: no {INDEX} in it")
    tensors = read_json(folder / INDEX)["tensors"]
    # Before any tensor is filled: a model that is half loaded would go on with the other half.
    needed: dict[str, int] = {}
    for key, entry in tensors.items():
        held = 0
        for chunk in entry["chunks"]:
            end = chunk["start"] + chunk["bytes"]
            needed[chunk["file"]] = max(needed.get(chunk["file"], 0), end)
            held += math.prod(chunk["sizes"])
        if held != math.prod(entry["size"]):
            numbers = math.prod(entry["size"])
            rule = f"{folder / INDEX} must hold all {numbers} numbers of {key}"
            raise InputError(f"{rule}, got {held}")
    for name, length in sorted(needed.items()):
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} must be there: the checkpoint is incomplete without it")
        if path.stat().st_size < length:
            raise InputError(f"{path} must hold {length} bytes, got {path.stat().st_size}")
    return tensors


def _stored_chunk(chunk: ChunkStorageMetadata, info: _StorageInfo) -> dict[str, Any]:
    return {
        "offsets": list(chunk.offsets),
        "sizes": list(chunk.sizes),
        "file": info.relative_path,
        "start": info.offset,
        "bytes": info.length,
    }


def _what_the_disk_says(error: BaseException) -> str:
    """The OSError below torch's own, where there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
