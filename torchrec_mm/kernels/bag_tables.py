"""Multi-hot bags pooled out of their tables, updated by row-wise Adagrad in the backward pass.

A row is read where it lies, as often as bags hold it, and learned from once, however many do.

Shape letters: n values in all bags, F features, B bags a feature, T tables, E width of a row.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.one_id_bags import Ids, Tables, anchor, update_reference
from torchrec_mm.kernels.pool_bags import PooledBags, pool_bags_reference

_FINE = 0  # as in bag_tables.cpp


@dataclass(frozen=True)
class TableBags:
    """Bags of several features, feature after feature, bag after bag.

    ids: (n,) int64, the row of each value. lengths: (F * B,) int32 summing to n. mean: (F,) int32,
    1 where bags are averaged, 0 where they are summed. table: (F,) int32 in [0, T).
    """

    ids: Tensor
    lengths: Tensor
    mean: Tensor
    table: Tensor

    @property
    def num_bags(self) -> int:
        """B."""
        return self.lengths.shape[0] // self.mean.shape[0]

    @cached_property
    def begins(self) -> Tensor:
        """(F * B + 1,) int64, where the values of each bag begin, and the last end."""
        begins = torch.zeros(self.lengths.shape[0] + 1, dtype=torch.int64)
        torch.cumsum(self.lengths, 0, out=begins[1:])
        return begins

    def passed(self, tables: Tables) -> ctypes.Structure:
        """For the kernel, while this lives."""
        pointers = (t.data_ptr() for t in (self.ids, self.begins, self.mean, self.table))
        sizes = (self.mean.shape[0], self.num_bags, tables.width, len(tables.weights))
        return _Bags(*pointers, *sizes)


def pool_tables(tables: Tables, bags: TableBags) -> Tensor:
    """Sum or average the rows of each bag; the backward pass updates ``tables`` in place.

    A row that several bags hold is updated once, with the sum of their gradients in the order of
    features and bags, as ``one_id_bags`` does, alike for any number of threads.

    Args:
        tables: T on the CPU. bags: of their rows.

    Returns:
        (B, F * E) float32, zeros for empty bags.

    Raises:
        IndexError: an id is no row of its table.
    """
    return _PooledTables.apply(tables, bags, anchor())


class _PooledTables(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tables: Tables, bags: TableBags, anchor: Tensor) -> Tensor:
        ctx.tables, ctx.bags = tables, bags
        return _pool(tables, bags)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        _update(ctx.tables, ctx.bags, gradient)
        return (None,) * 3


def _pool(tables: Tables, bags: TableBags) -> Tensor:
    kernel = compiled("bag_tables")
    if kernel is None:
        return _pool_reference(tables, bags)
    out = torch.empty(bags.num_bags, bags.mean.shape[0] * tables.width)
    weights, _, rows = tables.addresses
    threads = ctypes.c_int32(torch.get_num_threads())
    pointer = ctypes.c_void_p(out.data_ptr())
    if kernel.pool(weights, rows, bags.passed(tables), pointer, threads) != _FINE:
        raise IndexError("indices must be rows of their tables")
    return out


def _update(tables: Tables, bags: TableBags, gradient: Tensor) -> None:
    kernel = compiled("bag_tables")
    if kernel is None:
        _update_reference(tables, bags, gradient)
        return
    if gradient.stride(1) != 1:
        gradient = gradient.contiguous()
    weights, momentum, _ = tables.addresses
    kernel.update(
        weights,
        momentum,
        bags.passed(tables),
        ctypes.c_void_p(gradient.data_ptr()),
        ctypes.c_int64(gradient.stride(0)),
        tables.rates(),
        ctypes.c_float(tables.eps),
        ctypes.c_int32(torch.get_num_threads()),
    )


def _pool_reference(tables: Tables, bags: TableBags) -> Tensor:
    """In plain torch."""
    parts = zip(bags.ids.split(_of_features(bags)), bags.table.tolist(), strict=True)
    if bags.ids.numel() and bags.ids.min() < 0:
        raise IndexError("indices must be rows of their tables")
    rows = torch.cat([tables.weights[table][ids] for ids, table in parts])
    index = torch.arange(len(bags.ids))
    return pool_bags_reference(
        rows, PooledBags(index, bags.lengths, bags.mean, bags.table, len(tables.weights))
    )


def _update_reference(tables: Tables, bags: TableBags, gradient: Tensor) -> None:
    """In plain torch."""
    by_bag = gradient.reshape(bags.num_bags, len(bags.mean), -1).transpose(0, 1)
    lengths = bags.lengths.view(len(bags.mean), -1, 1).clamp(min=1)
    by_bag = torch.where(bags.mean.bool()[:, None, None], by_bag / lengths, by_bag)
    of_values = by_bag.reshape(len(bags.lengths), -1).repeat_interleave(bags.lengths, dim=0)
    table = bags.table.repeat_interleave(torch.tensor(_of_features(bags)))
    order = torch.argsort(table, stable=True)
    counts = torch.bincount(table, minlength=len(tables.weights))
    begins = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    update_reference(tables, Ids(bags.ids, order, begins), of_values)


def _of_features(bags: TableBags) -> list[int]:
    """(F,) values of each."""
    return bags.lengths.view(len(bags.mean), -1).sum(1).tolist()


class _Bags(ctypes.Structure):
    """The struct of the same name in bag_tables.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("ids", "begins", "mean", "table")),
        *((name, ctypes.c_int64) for name in ("features", "bags", "width", "tables")),
    ]
