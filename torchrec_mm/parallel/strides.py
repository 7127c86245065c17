"""Batches of one size on all ranks, where the backend needs it."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.data.batches import RequestBatch


def with_equal_strides(batches: Iterator[RequestBatch]) -> Iterator[RequestBatch]:
    """End the shorter ranks' features in empty bags, so that strides are alike. Collective.

    Row-wise tables gather their outputs' gradients from all ranks, and gloo gathers only tensors
    of one shape. NCCL takes any shapes, and batches pass through untouched.
    """
    if dist.get_world_size() == 1 or dist.get_backend() != "gloo":
        yield from batches
        return
    for batch in batches:
        if batch.request_features is None:
            yield batch
            continue
        strides = torch.tensor([batch.request_features.stride(), batch.item_features.stride()])
        dist.all_reduce(strides, op=dist.ReduceOp.MAX)
        request_stride, item_stride = strides.tolist()
        yield replace(
            batch,
            request_features=widen(batch.request_features, request_stride),
            item_features=widen(batch.item_features, item_stride),
        )


def widen(features: KeyedJaggedTensor, stride: int) -> KeyedJaggedTensor:
    """The same bags, then empty ones up to ``stride`` for every key."""
    lengths = features.lengths().view(len(features.keys()), features.stride())
    return KeyedJaggedTensor(
        keys=features.keys(),
        values=features.values(),
        lengths=F.pad(lengths, (0, stride - features.stride())).flatten(),
        stride=stride,
    )
