"""Multi-hot bags pooled out of rows that were looked up once each, however many bags hold them.

Shape letters: N distinct rows, n values in all bags, F features, B bags a feature, T tables,
E width of a row.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.distinct import distinct


@dataclass(frozen=True)
class PooledBags:
    """Which rows make up each bag.

    index: (n,) int64, the row of each value, feature after feature, bag after bag.
    lengths: (F * B,) int32 summing to n. mean: (F,) int32, 1 where bags are averaged, 0 where they
    are summed. table: (F,) int32 in [0, T), no two tables share a row.
    """

    index: Tensor
    lengths: Tensor
    mean: Tensor
    table: Tensor
    num_tables: int

    @property
    def num_bags(self) -> int:
        """B."""
        return len(self.lengths) // len(self.mean)

    @cached_property
    def begins(self) -> Tensor:
        """(F * B + 1,) int64, where the values of each bag begin, and the last end."""
        begins = torch.zeros(len(self.lengths) + 1, dtype=torch.int64)
        torch.cumsum(self.lengths, 0, out=begins[1:])
        return begins

    def passed(self, width: int) -> ctypes.Structure:
        """For the kernel, while this lives."""
        tensors = (self.index, self.begins, self.mean, self.table)
        sizes = (len(self.mean), self.num_bags, width, self.num_tables)
        return _Bags(*(tensor.data_ptr() for tensor in tensors), *sizes)


def pool_bags(rows: Tensor, bags: PooledBags) -> Tensor:
    """Sum or average the rows of each bag.

    Args:
        rows: (N, E) float32 on the CPU. bags: of these rows; an index out of range is not found.

    Returns:
        (B, F * E), zeros for empty bags; gradients are summed in the order of features and bags,
        alike for any number of threads.
    """
    if compiled("pool_bags") is None:
        return pool_bags_reference(rows, bags)
    return _Pooled.apply(rows.contiguous(), bags)


def pool_bags_reference(rows: Tensor, bags: PooledBags) -> Tensor:
    """Same as :func:`pool_bags`, in plain torch."""
    owners = torch.repeat_interleave(torch.arange(len(bags.lengths)), bags.lengths)
    sums = rows.new_zeros(len(bags.lengths), rows.shape[1]).index_add(0, owners, rows[bags.index])
    by_feature = sums.view(len(bags.mean), bags.num_bags, -1)
    lengths = bags.lengths.view(len(bags.mean), -1, 1).clamp(min=1)
    averaged = torch.where(bags.mean.bool()[:, None, None], by_feature / lengths, by_feature)
    return averaged.transpose(0, 1).reshape(bags.num_bags, -1)


def distinct_rows(
    ids: Tensor, lengths: Tensor, table: Tensor, num_tables: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The ids of each table, each once, however many features and bags hold it.

    Args:
        ids: (n,) int64. lengths: (F,) how many of them each feature has, one after the other.
        table: (F,) in [0, T).

    Returns:
        T of int64 distinct ids, in order of first occurrence, and F of int32, the place of each id
        of a feature among those of its table.
    """
    of_features = ids.split(lengths.tolist())
    tables = table.tolist()
    found: list[Tensor] = []
    places: list[Tensor] = [ids] * len(of_features)
    for number in range(num_tables):
        features = [place for place, each in enumerate(tables) if each == number]
        own = [of_features[place] for place in features]
        rows, index = distinct(own[0] if len(own) == 1 else torch.cat(own))
        found.append(rows)
        parts = index.split([len(part) for part in own])
        for feature, part in zip(features, parts, strict=True):
            places[feature] = part
    return found, places


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, bags: PooledBags) -> Tensor:
        width = rows.shape[1]
        out = rows.new_empty(bags.num_bags, len(bags.mean) * width)
        _call("pool", rows, bags, width, out)
        ctx.bags, ctx.shape = bags, rows.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        sums = gradient.new_zeros(ctx.shape)
        _call("spread", gradient.contiguous(), ctx.bags, ctx.shape[1], sums)
        return sums, None


def _call(function: str, given: Tensor, bags: PooledBags, width: int, out: Tensor) -> None:
    getattr(compiled("pool_bags"), function)(
        ctypes.c_void_p(given.data_ptr()),
        bags.passed(width),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int32(torch.get_num_threads()),
    )


class _Bags(ctypes.Structure):
    """The struct of the same name in pool_bags.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("index", "begins", "mean", "table")),
        *((name, ctypes.c_int64) for name in ("features", "bags", "width", "tables")),
    ]
