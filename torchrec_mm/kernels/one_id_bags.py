"""Look-ups of bags that hold at most one id, updated by row-wise Adagrad in the backward pass.

FBGEMM's operator on the CPU is made for bags of any size; where every bag holds one id at most,
as in this project's batches, the same result takes a fraction of the time.

Shape letters: T tables, B bags a table, E width of every table.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled


@dataclass(frozen=True)
class Tables:
    """Tables side by side, all of one width.

    weights: (rows, E) float32 each. momentum: (rows,) float32 each, sums of mean squared
    gradients; none for tables that do not learn. learning_rates: () float each. eps: added to the
    root of the momentum.
    """

    weights: Sequence[Tensor]
    momentum: Sequence[Tensor]
    learning_rates: Sequence[Tensor]
    eps: float

    @property
    def width(self) -> int:
        """E."""
        return self.weights[0].shape[1]

    @cached_property
    def addresses(self) -> tuple[ctypes.Array, ctypes.Array, ctypes.Array]:
        """Of weights and momentum, and how many rows each table has, for the kernel."""
        rows = (ctypes.c_int64 * len(self.weights))(*(len(weight) for weight in self.weights))
        return _pointers(self.weights), _pointers(self.momentum), rows


@dataclass(frozen=True)
class Bags:
    """Bags that hold at most one id.

    indices: (n,) int64 rows. offsets: (T * B + 1,) int64, where each bag begins, table after table.
    """

    indices: Tensor
    offsets: Tensor

    def shape(self, tables: Tables) -> tuple[int, int]:
        """(B, T * E), of the rows beside each other."""
        count = len(tables.weights)
        return (len(self.offsets) - 1) // count, count * tables.width

    def parts(self, tables: Tables) -> list[tuple[Tensor, Tensor]]:
        """By table the rows, and where they lie among (B * T) places."""
        count = len(tables.weights)
        lengths = self.offsets.diff().view(count, -1)
        split = self.indices.split(lengths.sum(1).tolist())
        return [(rows, lengths[t].nonzero()[:, 0] * count + t) for t, rows in enumerate(split)]

    def passed(self, tables: Tables) -> ctypes.Structure:
        """For the kernel."""
        count = len(tables.weights)
        bags = (len(self.offsets) - 1) // count
        return _Bags(self.indices.data_ptr(), self.offsets.data_ptr(), count, bags, tables.width)


@dataclass(frozen=True)
class Ids:
    """Ids of several tables in any order.

    indices: (n,) int64 rows. order: (n,) int64, where the ids of each table lie, table after table.
    begins: (T + 1,) int64, where each table begins in ``order``.
    """

    indices: Tensor
    order: Tensor
    begins: Tensor

    def shape(self, tables: Tables) -> tuple[int, int]:
        """(n, E), of the rows below each other."""
        return len(self.indices), tables.width

    def parts(self, tables: Tables) -> list[tuple[Tensor, Tensor]]:
        """By table the rows, and where they lie among (n) places."""
        return [(self.indices[at], at) for at in self.order.split(self.begins.diff().tolist())]

    def passed(self, tables: Tables) -> ctypes.Structure:
        """For the kernel."""
        pointers = (t.data_ptr() for t in (self.indices, self.order, self.begins))
        return _Ids(*pointers, len(tables.weights), tables.width)


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
    return _OneIdBags.apply(tables, Bags(indices.contiguous(), offsets.contiguous()), anchor())


def look_up(tables: Tables, wanted: Bags | Ids) -> Tensor:
    """(B, T * E) rows of bags, (n, E) of ids; IndexError for an index that is no row."""
    kernel = compiled("one_id_bags")
    if kernel is None:
        return look_up_reference(tables, wanted)
    out = torch.empty(wanted.shape(tables))
    call = kernel.look_up_bags if isinstance(wanted, Bags) else kernel.look_up_ids
    call.restype = ctypes.c_bool
    weights, _, rows = tables.addresses
    threads = ctypes.c_int32(torch.get_num_threads())
    if not call(weights, rows, wanted.passed(tables), _pointer(out), threads):
        raise IndexError("indices must be rows of their tables")
    return out


def update(tables: Tables, wanted: Bags | Ids, gradient: Tensor) -> None:
    """A step of row-wise Adagrad, in place. ``gradient``: of what ``look_up`` returned."""
    kernel = compiled("one_id_bags")
    if kernel is None:
        update_reference(tables, wanted, gradient)
        return
    call = kernel.update_bags if isinstance(wanted, Bags) else kernel.update_ids
    weights, momentum, _ = tables.addresses
    gradient, rates = gradient.contiguous(), map(float, tables.learning_rates)
    call(
        weights,
        momentum,
        wanted.passed(tables),
        _pointer(gradient),
        (ctypes.c_float * len(tables.weights))(*rates),
        ctypes.c_float(tables.eps),
        ctypes.c_int32(torch.get_num_threads()),
    )


def look_up_reference(tables: Tables, wanted: Bags | Ids) -> Tensor:
    """Same as :func:`look_up`, in plain torch."""
    out = torch.zeros(wanted.shape(tables))
    for weight, (rows, places) in zip(tables.weights, wanted.parts(tables), strict=True):
        out.view(-1, tables.width)[places] = weight[rows]
    return out


def update_reference(tables: Tables, wanted: Bags | Ids, gradient: Tensor) -> None:
    """Same as :func:`update`, in plain torch."""
    by_place = gradient.reshape(-1, tables.width)
    columns = zip(tables.weights, tables.momentum, tables.learning_rates, strict=True)
    parts = wanted.parts(tables)
    for (weight, momentum, rate), (rows, places) in zip(columns, parts, strict=True):
        unique, inverse = rows.unique(return_inverse=True)
        sums = by_place.new_zeros(len(unique), tables.width)
        sums.index_add_(0, inverse, by_place[places])
        momentum[unique] += sums.square().mean(1)
        step = float(rate) / (momentum[unique].sqrt() + tables.eps)
        weight[unique] -= step[:, None] * sums


def anchor() -> Tensor:
    """Something that wants a gradient, so that the backward pass comes by."""
    return torch.empty(0, requires_grad=True)


class _OneIdBags(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tables: Tables, bags: Bags, anchor: Tensor) -> Tensor:
        ctx.tables, ctx.bags = tables, bags
        return look_up(tables, bags)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        update(ctx.tables, ctx.bags, gradient)
        return (None,) * 3


class _Bags(ctypes.Structure):
    """The struct of the same name in one_id_bags.cpp."""

    _fields_ = [
        ("indices", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("tables", "bags", "width")),
    ]


class _Ids(ctypes.Structure):
    """The struct of the same name in one_id_bags.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("indices", "order", "begins")),
        *((name, ctypes.c_int64) for name in ("tables", "width")),
    ]


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
