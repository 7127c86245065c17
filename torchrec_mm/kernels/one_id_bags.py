"""Look-ups of bags that hold at most one id, updated by row-wise Adagrad in the backward pass.

FBGEMM's operator on the CPU is made for bags of any size; where every bag holds one id at most,
as in this project's batches, the same result takes a fraction of the time.

Shape letters: T tables, B bags a table, E width of every table.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled


@dataclass(frozen=True)
class Tables:
    """Tables side by side, all of one width.

    weights: (rows, E) float32 each. momentum: (rows,) float32 each, sums of mean squared
    gradients. learning_rate: () float. eps: added to the root of the momentum.
    """

    weights: Sequence[Tensor]
    momentum: Sequence[Tensor]
    learning_rate: Tensor
    eps: float


def one_id_bags(tables: Tables, indices: Tensor, offsets: Tensor) -> Tensor:
    """Look up; the backward pass updates ``tables`` in place and returns no gradient.

    A row whose id several bags hold is updated once, with the sum of their gradients:
    momentum += mean(g * g), row -= learning_rate * g / (sqrt(momentum) + eps).

    Args:
        tables: on the CPU. indices: (n,) int64 rows, in range. offsets: (T * B + 1,) int64, where
            each bag begins, table after table; no bag holds two ids.

    Returns:
        (B, T * E) float32, zeros for empty bags.

    Raises:
        IndexError: an index is no row of its table.
    """
    kernel = compiled("one_id_bags")
    return _OneIdBags.apply(kernel, tables, indices.contiguous(), offsets.contiguous(), _anchor())


def look_up_reference(tables: Tables, indices: Tensor, offsets: Tensor) -> Tensor:
    """The forward pass of :func:`one_id_bags`, in plain torch."""
    lengths = offsets.diff().view(len(tables.weights), -1)
    bags = [torch.zeros(lengths.shape[1], w.shape[1]) for w in tables.weights]
    parts = indices.split(lengths.sum(1).tolist())
    for bag, weight, length, rows in zip(bags, tables.weights, lengths, parts, strict=True):
        bag[length > 0] = weight[rows]
    return torch.cat(bags, dim=1)


def update_reference(tables: Tables, indices: Tensor, offsets: Tensor, gradient: Tensor) -> None:
    """The backward pass of :func:`one_id_bags`, in plain torch. ``gradient``: (B, T * E)."""
    lengths = offsets.diff().view(len(tables.weights), -1)
    parts = indices.split(lengths.sum(1).tolist())
    gradients = gradient.chunk(len(tables.weights), dim=1)
    columns = zip(tables.weights, tables.momentum, lengths, parts, gradients, strict=True)
    for weight, momentum, length, rows, by_bag in columns:
        unique, inverse = rows.unique(return_inverse=True)
        sums = by_bag.new_zeros(len(unique), weight.shape[1])
        sums.index_add_(0, inverse, by_bag[length > 0])
        momentum[unique] += sums.square().mean(1)
        step = float(tables.learning_rate) / (momentum[unique].sqrt() + tables.eps)
        weight[unique] -= step[:, None] * sums


class _OneIdBags(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: ctypes.CDLL | None,
        tables: Tables,
        indices: Tensor,
        offsets: Tensor,
        anchor: Tensor,
    ) -> Tensor:
        ctx.kernel, ctx.tables = kernel, tables
        ctx.save_for_backward(indices, offsets)
        if kernel is None:
            return look_up_reference(tables, indices, offsets)
        bags = _Bags.of(tables, indices, offsets)
        out = torch.empty(bags.bags, bags.tables * bags.width)
        kernel.look_up.restype = ctypes.c_bool
        rows = (ctypes.c_int64 * bags.tables)(*(len(weight) for weight in tables.weights))
        threads = ctypes.c_int32(torch.get_num_threads())
        if not kernel.look_up(_pointers(tables.weights), rows, bags, _pointer(out), threads):
            raise IndexError("indices must be rows of their tables")
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        tables, (indices, offsets) = ctx.tables, ctx.saved_tensors
        if ctx.kernel is None:
            update_reference(tables, indices, offsets, gradient)
            return (None,) * 5
        gradient = gradient.contiguous()
        ctx.kernel.update(
            _pointers(tables.weights),
            _pointers(tables.momentum),
            _Bags.of(tables, indices, offsets),
            _pointer(gradient),
            ctypes.c_float(float(tables.learning_rate)),
            ctypes.c_float(tables.eps),
            ctypes.c_int32(torch.get_num_threads()),
        )
        return (None,) * 5


class _Bags(ctypes.Structure):
    """The struct of the same name in one_id_bags.cpp."""

    _fields_ = [
        ("indices", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("tables", "bags", "width")),
    ]

    @classmethod
    def of(cls, tables: Tables, indices: Tensor, offsets: Tensor) -> "_Bags":
        count = len(tables.weights)
        bags, width = (len(offsets) - 1) // count, tables.weights[0].shape[1]
        return cls(indices.data_ptr(), offsets.data_ptr(), count, bags, width)


def _anchor() -> Tensor:
    """Something that wants a gradient, so that the backward pass comes by."""
    return torch.empty(0, requires_grad=True)


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
