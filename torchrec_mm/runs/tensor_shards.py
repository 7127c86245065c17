"""What a rank holds of each tensor, and the planners that save and load it.

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
    TensorStorageMetadata,
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
from torch.distributed.tensor import DTensor

CHUNK_BYTES = 64 << 20  # what a reader of a few rows has to load, and an exporter to hold

Offsets = tuple[int, ...]


@dataclass(frozen=True)
class TensorShards:
    """This rank's part of one tensor.

    size, dtype: of the whole tensor. parts: where each begins in it, and its values; empty where
    other ranks hold it all. A replicated tensor is one part on every rank.

    >>> TensorShards.of(torch.zeros(2, 3)).parts
    (((0, 0), tensor([[0., 0., 0.],
            [0., 0., 0.]])),)
    """

    size: torch.Size
    dtype: torch.dtype
    parts: tuple[tuple[Offsets, Tensor], ...]

    @classmethod
    def of(cls, tensor: Tensor | ShardedTensor) -> "TensorShards":
        """The shards of this rank in the same memory: filling them fills ``tensor``.

        Raises:
            ValueError: ``tensor`` is something else, such as a DTensor.
        """
        # Taken for a plain tensor, a DTensor's local part would pass for the whole.
        if isinstance(tensor, DTensor) or not isinstance(tensor, Tensor | ShardedTensor):
            raise ValueError(f"tensor must be a Tensor or a ShardedTensor, got {type(tensor)}")
        # Detached, as autograd lets nobody fill a parameter in place.
        if isinstance(tensor, ShardedTensor):
            shards = tensor.local_shards()
            parts = tuple((tuple(s.metadata.shard_offsets), s.tensor.detach()) for s in shards)
        else:
            parts = (((0,) * tensor.dim(), tensor.detach()),)
        return cls(tensor.size(), tensor.dtype, parts)

    def chunks(self) -> Iterator[tuple[Offsets, Tensor]]:
        """The parts, cut into runs of rows of at most CHUNK_BYTES, in turn: offsets and values."""
        for offsets, tensor in self.parts:
            if tensor.nbytes <= CHUNK_BYTES:
                yield offsets, tensor
                continue
            rows = max(1, CHUNK_BYTES * len(tensor) // tensor.nbytes)
            for start in range(0, len(tensor), rows):
                yield (offsets[0] + start, *offsets[1:]), tensor[start : start + rows]


def model_shards(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, TensorShards]:
    """This rank's part of a model, and of its optimizers' state, by checkpoint key.

    The keys are the same under every plan and on any number of ranks, save for tables that are
    replicated: TorchRec names their state otherwise (pytorch/torchrec#2394), so plan none
    ``data_parallel``. Row-wise Adagrad has another state where columns are split.

    Args:
        model: a DistributedModelParallel, or any module; what is filled is its own memory.
        optimizer: TorchRec's, whose state goes by parameters' names: ``model.fused_optimizer``, a
            KeyedOptimizerWrapper of the dense part, or both as a CombinedOptimizer. One that
            learns by state has it after its first step, or by ``init_state()``.

    Returns:
        ``model.<name>`` of ``model.state_dict()`` and ``optimizer.<parameter>.<state>``.

    Raises:
        ValueError: something that is neither a plain tensor nor a ShardedTensor.

    >>> shards = model_shards(torch.nn.EmbeddingBag(10, 4))
    >>> {key: (own.size, [offsets for offsets, _ in own.parts]) for key, own in shards.items()}
    {'model.weight': (torch.Size([10, 4]), [(0, 0)])}
    """
    shards = {f"model.{name}": TensorShards.of(t) for name, t in model.state_dict().items()}
    state = optimizer.state_dict()["state"] if optimizer else {}
    return shards | {
        f"optimizer.{parameter}.{name}": TensorShards.of(tensor)
        for parameter, entries in state.items()
        for name, tensor in entries.items()
    }


def tensors_of(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    """By key, all that is in a checkpoint of ours."""
    entries = metadata.state_dict_metadata.items()
    return {key: entry for key, entry in entries if isinstance(entry, TensorStorageMetadata)}


class ShardSavePlanner(DefaultSavePlanner):
    """Plans one item a chunk; what several ranks hold is written by one of them."""

    def __init__(self, shards: Mapping[str, TensorShards]) -> None:
        # Nothing to flatten: torch is given an empty state dict, and the items from here.
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.items: list[WriteItem] = []
        self.tensors: dict[MetadataIndex, Tensor] = {}
        for key, own in shards.items():
            for offsets, tensor in own.chunks():
                # An empty shard is left out: it may begin where another rank's rows do. A tensor
                # that is empty as a whole is written, so that its key is there.
                if tensor.numel() or not math.prod(own.size):
                    index = MetadataIndex(key, offsets)
                    self.tensors[index] = tensor
                    self.items.append(_write_item(index, own, _chunk(offsets, tensor)))

    def create_local_plan(self) -> SavePlan:
        return SavePlan(self.items)

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self.tensors[index]


class ShardLoadPlanner(LoadPlanner):
    """Plans to fill the shards from whatever chunks hold their values."""

    def __init__(self, shards: Mapping[str, TensorShards]) -> None:
        self.shards = shards
        self.tensors = {
            MetadataIndex(key, offsets): tensor
            for key, own in shards.items()
            for offsets, tensor in own.parts
        }

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        self.metadata = metadata

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None  # torch sets the planner up first
        saved = tensors_of(self.metadata)
        return LoadPlan(
            [
                item
                for key, own in self.shards.items()
                for item in create_read_items_for_chunk_list(
                    key,
                    saved[key],
                    [_chunk(offsets, tensor) for offsets, tensor in own.parts],
                )
            ]
        )

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan  # each rank reads for itself, so there is nothing to settle

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
        pass  # resolve_tensor gave the memory itself, so there is nothing to copy back


def _write_item(
    index: MetadataIndex, shards: TensorShards, chunk: ChunkStorageMetadata
) -> WriteItem:
    data = TensorWriteData(chunk, TensorProperties(dtype=shards.dtype), shards.size)
    return WriteItem(index, WriteItemType.SHARD, tensor_data=data)


def _chunk(offsets: Offsets, tensor: Tensor) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(offsets), tensor.size())
