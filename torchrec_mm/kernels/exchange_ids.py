"""Ids sorted by the rank that holds their rows, and those that came sorted by table.

Shape letters: P parts, T tables of a part, B bags a table, F tables in all, W ranks, n ids to send,
m ids that came.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchrec_mm.kernels.build import compiled

_LONG_BAG, _NO_ROW = 1, 2  # as in exchange_ids.cpp


@dataclass(frozen=True)
class Part:
    """Bags of one id or none, as many of each of some tables.

    ids: int64, one after another. lengths: (T * B,) int32, ids of each bag, table after table.
    numbers: (T,) int64, which of all tables these are.
    """

    ids: Tensor
    lengths: Tensor
    numbers: Tensor

    @property
    def bags(self) -> int:
        """B."""
        return len(self.lengths) // len(self.numbers)


@dataclass(frozen=True)
class Routed:
    """Ids in the order of ranks, of each rank in that of tables.

    counts: (W, F) int64, how many of them. ids: (n,) int64 rows on their ranks. places: (n,) int64,
    the bag of each: part after part, in a part bag after bag, of a bag's number table after table.
    """

    counts: Tensor
    ids: Tensor
    places: Tensor


def route(parts: Sequence[Part], ends: Tensor) -> Routed:
    """Sort ids by the rank that holds their rows.

    Args:
        parts: what is looked up. ends: (F, W) int64, where the rows of each rank end; they begin
            where those of the rank before end.

    Raises:
        ValueError: a bag holds two ids. IndexError: an id is no row of its table.
    """
    kernel = compiled("exchange_ids")
    if kernel is None:
        return route_reference(parts, ends)
    total = sum(len(part.ids) for part in parts)
    found = Routed(
        torch.zeros(ends.shape[1], len(ends), dtype=torch.int64),
        torch.empty(total, dtype=torch.int64),
        torch.empty(total, dtype=torch.int64),
    )
    passed = (_Part * len(parts))(*map(_Part.of, parts))
    sizes = (ctypes.c_int64(size) for size in ends.shape)
    out = map(_pointer, (found.counts, found.ids, found.places))
    _check(kernel.route(passed, ctypes.c_int64(len(parts)), _pointer(ends), *sizes, *out))
    return found


def route_reference(parts: Sequence[Part], ends: Tensor) -> Routed:
    """Same as :func:`route`, in plain torch."""
    tables, places, before = [], [], 0
    for part in parts:
        if (part.lengths > 1).any():
            _check(_LONG_BAG)
        table, bag = part.lengths.view(len(part.numbers), -1).nonzero().unbind(1)
        tables.append(part.numbers[table])
        places.append(before + bag * len(part.numbers) + table)
        before += len(part.lengths)
    ids, table = torch.cat([part.ids for part in parts]), torch.cat(tables)
    rank = (ids[:, None] >= ends[table]).sum(1)
    if (ids < 0).any() or (rank == ends.shape[1]).any():
        _check(_NO_ROW)
    key = rank * len(ends) + table
    order = key.argsort(stable=True)
    begins = torch.nn.functional.pad(ends, (1, 0))
    counts = key.bincount(minlength=ends.numel()).view(ends.shape[1], -1)
    return Routed(counts, (ids - begins[table, rank])[order], torch.cat(places)[order])


def by_table(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ids of each table lie among those that came.

    Args:
        counts: (W, F) int64, how many of each table came from each rank, in this order.

    Returns:
        (m,) int64 positions, table after table, rank after rank; (F + 1,) int64, where each table
        begins.
    """
    kernel = compiled("exchange_ids")
    if kernel is None:
        return by_table_reference(counts)
    order = torch.empty(int(counts.sum()), dtype=torch.int64)
    begins = torch.empty(counts.shape[1] + 1, dtype=torch.int64)
    sizes = (ctypes.c_int64(size) for size in counts.shape)
    kernel.by_table(_pointer(counts), *sizes, _pointer(order), _pointer(begins))
    return order, begins


def by_table_reference(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Same as :func:`by_table`, in plain torch."""
    tables = torch.arange(counts.shape[1]).repeat(len(counts))
    order = tables.repeat_interleave(counts.flatten()).argsort(stable=True)
    return order, torch.nn.functional.pad(counts.sum(0).cumsum(0), (1, 0))


def _check(found: int) -> None:
    if found == _LONG_BAG:
        raise ValueError("bags must hold one id at most where there are several ranks")
    if found == _NO_ROW:
        raise IndexError("indices must be rows of their tables")


class _Part(ctypes.Structure):
    """The struct of the same name in exchange_ids.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("ids", "lengths", "numbers")),
        *((name, ctypes.c_int64) for name in ("tables", "bags")),
    ]

    @classmethod
    def of(cls, part: Part) -> "_Part":
        pointers = (x.data_ptr() for x in (part.ids, part.lengths, part.numbers))
        return cls(*pointers, len(part.numbers), part.bags)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
