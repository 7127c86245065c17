"""Batches of one size on all ranks, where the backend needs it."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.data.stream.batches import RequestBatch

KJT_FIELDS = ("item_ids", "features", "raw_ids")


def with_equal_strides(batches: Iterator[RequestBatch]) -> Iterator[RequestBatch]:
    """End the shorter ranks' features in empty bags, so that strides are alike. Collective.

    Row-wise tables gather their outputs' gradients from all ranks, and gloo gathers only tensors
    of one shape. NCCL takes any shapes, and batches pass through untouched.
    """
    if dist.get_world_size() == 1 or dist.get_backend() != "gloo":
        yield from batches
        return
    for batch in batches:
        bags = {name: getattr(batch, name) for name in KJT_FIELDS}
        bags = {name: features for name, features in bags.items() if features is not None}
        if bags:
            strides = torch.tensor([features.stride() for features in bags.values()])
            dist.all_reduce(strides, op=dist.ReduceOp.MAX)
            wide = map(pad_bags, bags.values(), strides.tolist())
            batch = replace(batch, **dict(zip(bags, wide, strict=True)))
        yield batch


def pad_bags(features: KeyedJaggedTensor, stride: int) -> KeyedJaggedTensor:
    """The same bags, then empty ones up to ``stride`` for every key."""
    lengths = features.lengths().view(len(features.keys()), features.stride())
    return KeyedJaggedTensor(
        keys=features.keys(),
        values=features.values(),
        lengths=F.pad(lengths, (0, stride - features.stride())).flatten(),
        stride=stride,
    )
