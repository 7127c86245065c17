"""Rows of several tables side by side: what an item is, out of the look-ups of its tables.

Shape letters: F tables, N rows wanted, n rows of a source, W columns of a source, E width of a
table.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled


def gather_columns(
    sources: Sequence[Tensor], columns: Sequence[tuple[int, int]], index: Tensor, width: int
) -> Tensor:
    """Concatenate one row of each table.

    Args:
        sources: (n, W) float each, look-ups of several tables beside each other.
        columns: F pairs, which source a table's columns lie in and where they begin.
        index: (F, N) int32, the row of each table; in range, which is not checked.
        width: E.

    Returns:
        (N, F * E); gradients are summed in the order of the rows, alike for any number of threads.
    """
    on_cpu = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in sources)
    kernel = compiled("gather_columns") if on_cpu and len(columns) else None
    if kernel is None:
        return gather_columns_reference(sources, columns, index, width)
    sources = [source.contiguous() for source in sources]
    return _Compiled.apply(kernel, tuple(columns), index.contiguous(), width, *sources)


def gather_columns_reference(
    sources: Sequence[Tensor], columns: Sequence[tuple[int, int]], index: Tensor, width: int
) -> Tensor:
    """Same as :func:`gather_columns`, in plain torch: any device and float dtype."""
    parts = [
        F.embedding(rows, sources[source][:, start : start + width])
        for rows, (source, start) in zip(index, columns, strict=True)
    ]
    return torch.cat(parts, dim=1) if parts else sources[0].new_zeros(index.shape[1], 0)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: ctypes.CDLL,
        columns: tuple[tuple[int, int], ...],
        index: Tensor,
        width: int,
        *sources: Tensor,
    ) -> Tensor:
        out = sources[0].new_empty(index.shape[1], len(columns) * width)
        _call(kernel.gather, sources, columns, index, width, out)
        ctx.kernel, ctx.columns, ctx.width = kernel, columns, width
        ctx.shapes = [source.shape for source in sources]
        ctx.save_for_backward(index)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        sums = [gradient.new_zeros(shape) for shape in ctx.shapes]
        args = (sums, ctx.columns, index, ctx.width, gradient.contiguous())
        _call(ctx.kernel.scatter_add, *args)
        return None, None, None, None, *sums


def _call(
    function: Callable[..., object],
    sources: Sequence[Tensor],
    columns: tuple[tuple[int, int], ...],
    index: Tensor,
    width: int,
    rows: Tensor,
) -> None:
    count = len(columns)
    # A table is columns of its source: where they begin (4 bytes a float32), and the row's stride.
    begins = [source.data_ptr() for source in sources]
    pointers = (ctypes.c_void_p * count)(*[begins[source] + 4 * start for source, start in columns])
    function(
        pointers,
        _strides(columns, tuple(source.shape[1] for source in sources)),
        ctypes.c_void_p(index.data_ptr()),
        ctypes.c_int64(count),
        ctypes.c_int64(index.shape[1]),
        ctypes.c_int64(width),
        ctypes.c_void_p(rows.data_ptr()),
        ctypes.c_int32(torch.get_num_threads()),
    )


@cache
def _strides(columns: tuple[tuple[int, int], ...], widths: tuple[int, ...]) -> ctypes.Array:
    return (ctypes.c_int64 * len(columns))(*(widths[source] for source, _ in columns))
