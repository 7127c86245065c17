"""What a rank holds of each tensor, and the planners that save and load it piece by piece.

torch.distributed.checkpoint stores a tensor as rectangles that anyone may read back in other
rectangles: that is what makes a checkpoint independent of the world size and of the sharding type.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

CHUNK_BYTES = 64 << 20  # what a reader of a few rows has to load, and an exporter to hold

Offsets = tuple[int, ...]


@dataclass(frozen=True)
class Pieces:
    """This rank's part of one tensor.

    size, dtype: of the whole tensor. parts: where each piece begins in it, and its values; empty
    where other ranks hold it all. A replicated tensor is one piece on every rank.
    """

    size: torch.Size
    dtype: torch.dtype
    parts: tuple[tuple[Offsets, Tensor], ...]

    @classmethod
    def of(cls, tensor: Tensor | ShardedTensor) -> "Pieces":
        """The same memory: filling the pieces fills ``tensor``."""
        if isinstance(tensor, ShardedTensor):
            shards = tensor.local_shards()
            parts = tuple((tuple(s.metadata.shard_offsets), s.tensor.detach()) for s in shards)
        else:
            parts = (((0,) * tensor.dim(), tensor.detach()),)
        return cls(tensor.size(), tensor.dtype, parts)

    def chunks(self) -> Iterator[tuple[Offsets, Tensor]]:
        """The parts, cut into runs of rows of at most CHUNK_BYTES."""
        for offsets, tensor in self.parts:
            if tensor.nbytes <= CHUNK_BYTES:
                yield offsets, tensor
                continue
            rows = max(1, CHUNK_BYTES * len(tensor) // tensor.nbytes)
            for start in range(0, len(tensor), rows):
                yield (offsets[0] + start, *offsets[1:]), tensor[start : start + rows]


def model_pieces(model: nn.Module) -> dict[str, Pieces]:
    """This rank's part of a model, by checkpoint key."""
    return {f"model.{name}": Pieces.of(tensor) for name, tensor in model.state_dict().items()}


class PieceSavePlanner(DefaultSavePlanner):
    """Plans one item a chunk; what several ranks hold is written by one of them."""

    def __init__(self, pieces: Mapping[str, Pieces]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.items: list[WriteItem] = []
        self.tensors: dict[MetadataIndex, Tensor] = {}
        for key, piece in pieces.items():
            for offsets, tensor in piece.chunks():
                if tensor.numel() or not math.prod(piece.size):
                    index = MetadataIndex(key, offsets)
                    self.tensors[index] = tensor
                    self.items.append(_write_item(index, piece, tensor))

    def create_local_plan(self) -> SavePlan:
        return SavePlan(self.items)

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self.tensors[index]


class PieceLoadPlanner(LoadPlanner):
    """Plans to fill the pieces from whatever chunks hold their values."""

    def __init__(self, pieces: Mapping[str, Pieces]) -> None:
        self.pieces = pieces
        self.tensors = {
            MetadataIndex(key, offsets): tensor
            for key, piece in pieces.items()
            for offsets, tensor in piece.parts
        }

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        self.metadata = metadata

    def create_local_plan(self) -> LoadPlan:
        return LoadPlan(
            [
                item
                for key, piece in self.pieces.items()
                for item in create_read_items_for_chunk_list(
                    key,
                    self.metadata.state_dict_metadata[key],
                    [_chunk(offsets, tensor) for offsets, tensor in piece.parts],
                )
            ]
        )

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        raise AssertionError("checkpoints hold tensors only")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        tensor = self.tensors[read_item.dest_index]
        for axis, (start, length) in enumerate(
            zip(read_item.dest_offsets, read_item.lengths, strict=True)
        ):
            tensor = tensor.narrow(axis, start, length)
        return tensor

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass


def _write_item(index: MetadataIndex, pieces: Pieces, tensor: Tensor) -> WriteItem:
    properties = TensorProperties(dtype=pieces.dtype)
    data = TensorWriteData(_chunk(index.offset, tensor), properties, pieces.size)
    return WriteItem(index, WriteItemType.SHARD, tensor_data=data)


def _chunk(offsets: Offsets, tensor: Tensor) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(offsets), tensor.size())
