"""Batches of one size on all ranks, where TorchRec's tables need it over gloo."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.data.stream.bags import pad_bags


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
