"""Batches of one size on all ranks, where TorchRec's tables need it over gloo."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def equalise_strides(collection: nn.Module) -> None:
    """From now on shorter ranks' features end in empty bags on their way in. Collective.

    Row-wise tables gather their outputs' gradients from all ranks, and gloo gathers only tensors
    of one shape.
    """
    collection.register_forward_pre_hook(_widened)


def _widened(_: nn.Module, args: tuple[Any, ...]) -> tuple[KeyedJaggedTensor]:
    (features,) = args
    stride = torch.tensor(features.stride())
    dist.all_reduce(stride, op=dist.ReduceOp.MAX)
    return (pad_bags(features, int(stride)),)


def pad_bags(features: KeyedJaggedTensor, stride: int) -> KeyedJaggedTensor:
    """The same bags, then empty ones up to ``stride`` for every key."""
    lengths = features.lengths().view(len(features.keys()), features.stride())
    return KeyedJaggedTensor(
        keys=features.keys(),
        values=features.values(),
        lengths=F.pad(lengths, (0, stride - features.stride())).flatten(),
        stride=stride,
    )
