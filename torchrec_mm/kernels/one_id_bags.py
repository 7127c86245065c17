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

_FINE, _NO_ROW = 0, 2  # as in one_id_bags.cpp


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

    def rates(self) -> ctypes.Array:
        """Learning rates as they are now, for the kernel; most tables share one tensor."""
        now = {id(rate): rate for rate in self.learning_rates}
        read = {key: float(rate) for key, rate in now.items()}
        return (ctypes.c_float * len(self.weights))(*(read[id(r)] for r in self.learning_rates))


@dataclass(frozen=True)
class Bags:
    """Bags that hold at most one id. rows: (T, B) int64, -1 for empty ones."""

    rows: Tensor

    @classmethod
    def of(cls, tables: Tables, indices: Tensor, lengths: Tensor) -> "Bags | None":
        """Out of ids one after another; None if a bag holds two.

        Args:
            indices: (n,) int64. lengths: (T * B,) int32 summing to n, ids of each bag, table after
                table.

        Raises:
            IndexError: an index is no row of its table.
        """
        kernel, count = compiled("one_id_bags"), len(tables.weights)
        rows = torch.empty(count, len(lengths) // count, dtype=torch.int64)
        if kernel is None:
            if (lengths > 1).any():
                return None
            rows.view(-1)[lengths == 0] = -1
            rows.view(-1)[lengths > 0] = indices
            ends = torch.tensor([len(weight) for weight in tables.weights])[:, None]
            found = _NO_ROW if (indices < 0).any() or (rows >= ends).any() else _FINE
        else:
            indices, lengths = indices.contiguous(), lengths.contiguous()
            shape = (ctypes.c_int64(count), ctypes.c_int64(rows.shape[1]))
            found = kernel.place_bags(
                _pointer(indices), _pointer(lengths), *shape, tables.addresses[2], _pointer(rows)
            )
        if found == _NO_ROW:
            raise IndexError("indices must be rows of their tables")
        return cls(rows) if found == _FINE else None

    def shape(self, tables: Tables) -> tuple[int, int]:
        """(B, T * E), of the rows beside each other."""
        return self.rows.shape[1], len(self.rows) * tables.width

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """By table the rows, and where they lie among (B * T) places."""
        full = [(rows[rows >= 0], (rows >= 0).nonzero()[:, 0]) for rows in self.rows]
        return [(rows, bags * len(full) + table) for table, (rows, bags) in enumerate(full)]

    def passed(self, tables: Tables) -> ctypes.Structure:
        """For the kernel."""
        return _Bags(self.rows.data_ptr(), *self.rows.shape, tables.width)


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

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """By table the rows, and where they lie among (n) places."""
        return [(self.indices[at], at) for at in self.order.split(self.begins.diff().tolist())]

    def passed(self, tables: Tables) -> ctypes.Structure:
        """For the kernel."""
        pointers = (t.data_ptr() for t in (self.indices, self.order, self.begins))
        return _Ids(*pointers, len(tables.weights), tables.width)


def one_id_bags(tables: Tables, bags: Bags) -> Tensor:
    """Look up; the backward pass updates ``tables`` in place and returns no gradient.

    A row whose id several bags hold is updated once, with the sum of their gradients:
    momentum += mean(g * g), row -= learning_rate * g / (sqrt(momentum) + eps).

    Args:
        tables: on the CPU. bags: as many of each table.

    Returns:
        (B, T * E) float32, zeros for empty bags.
    """
    return _OneIdBags.apply(tables, bags, anchor())


def look_up(tables: Tables, wanted: Bags | Ids) -> Tensor:
    """(B, T * E) rows of bags, (n, E) of ids; IndexError for an id that is no row."""
    kernel = compiled("one_id_bags")
    if kernel is None:
        return look_up_reference(tables, wanted)
    out = torch.empty(wanted.shape(tables))
    weights, _, rows = tables.addresses
    ending = (wanted.passed(tables), _pointer(out), ctypes.c_int32(torch.get_num_threads()))
    if isinstance(wanted, Bags):
        kernel.look_up_bags(weights, *ending)
    elif kernel.look_up_ids(weights, rows, *ending) != _FINE:
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
    if gradient.stride(1) != 1:
        gradient = gradient.contiguous()
    call(
        weights,
        momentum,
        wanted.passed(tables),
        _pointer(gradient),
        ctypes.c_int64(gradient.stride(0)),
        tables.rates(),
        ctypes.c_float(tables.eps),
        ctypes.c_int32(torch.get_num_threads()),
    )


def look_up_reference(tables: Tables, wanted: Bags | Ids) -> Tensor:
    """Same as :func:`look_up`, in plain torch."""
    out = torch.zeros(wanted.shape(tables))
    for weight, (rows, places) in zip(tables.weights, wanted.parts(), strict=True):
        out.view(-1, tables.width)[places] = weight[rows]
    return out


def update_reference(tables: Tables, wanted: Bags | Ids, gradient: Tensor) -> None:
    """Same as :func:`update`, in plain torch."""
    by_place = gradient.reshape(-1, tables.width)
    columns = zip(tables.weights, tables.momentum, tables.learning_rates, strict=True)
    parts = wanted.parts()
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
        ("rows", ctypes.c_void_p),
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
