"""Attention over behaviours that many impressions share: table rows are read where they lie.

Shape letters: I impressions, M rows of index, K kept behaviours, S slots, E embedding width.
"""

import ctypes
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.on_gpu import runs_on_gpu

_LANES = 16
_TENSORS = ("query", "table", "index", "length", "cosine", "mix", "request")


def gathered_attention(
    query: Tensor,
    table: Tensor,
    index: Tensor,
    length: Tensor,
    cosine: Tensor | None = None,
    mix: Tensor | None = None,
    request: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weigh the behaviours of each impression by a softmax over their scores.

    A behaviour v scores ``dot = <query, v> / sqrt(E)``; with cosines it scores
    ``a * dot + b * cosine + c * dot * cosine``. Float32 on CPU runs compiled where it can; its
    results are the same from run to run and for any number of threads.

    Source: SA-TA of MUSE, arXiv:2512.07216.

    Args:
        query: (I, E) float32, one row an impression.
        table: (S, E) float32, key and value of each slot.
        index: (M, K) int32, slot in [0, S) of each kept behaviour; padding may hold anything.
        length: (M,) int32 in [0, K], real entries of each row of ``index``; they come first.
        cosine: (I, K) float32, similarity of impression and behaviour; padding may hold anything.
            Takes no gradient. Given exactly when ``mix`` is.
        mix: (3,) float32, a, b and c.
        request: (I,) int32 in [0, M), row of ``index`` and ``length`` that an impression uses;
            None: its own, and M = I.

    Returns:
        interest: (I, E), weighted mean of each impression's behaviours; zeros where there is none.
        mean: (M, E), plain mean of each row's behaviours; zeros where there is none.

    Raises:
        ValueError: a shape or dtype is not as above.
        IndexError: ``index``, ``length`` or ``request`` is out of its range (compiled; the plain
            version, where a check would wait for the device, promises nothing then).
    """
    _check(query, table, index, length, cosine, mix, request)
    inputs = (query, table, index, length, cosine, mix, request)
    kernel = None
    if query.dtype == torch.float32 and runs_on_gpu(*inputs):
        from torchrec_mm.kernels.triton.gathered_attention import GatheredAttention

        interest, mean = GatheredAttention.apply(*inputs)
        return interest, mean
    if all(x is None or x.device.type == "cpu" for x in inputs) and query.dtype == torch.float32:
        kernel = compiled("gathered_attention")
    if kernel is None:
        return gathered_attention_reference(*inputs)
    width = query.shape[1]
    rest = (x if x is None else x.contiguous() for x in inputs[2:])
    scale = 1 / math.sqrt(width)
    interest, mean = _Compiled.apply(kernel, scale, _padded(query), _padded(table), *rest)
    return interest[:, :width], mean[:, :width]


def gathered_attention_reference(
    query: Tensor,
    table: Tensor,
    index: Tensor,
    length: Tensor,
    cosine: Tensor | None = None,
    mix: Tensor | None = None,
    request: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same as :func:`gathered_attention`, in plain torch: any device and float dtype."""
    num_slots, width = table.shape
    real = torch.arange(index.shape[1], device=index.device) < length[:, None]
    # A row of zeros more for padding, so that no slot's content can reach a result through it.
    rows = F.embedding(
        torch.where(real, index, num_slots), F.pad(table, (0, 0, 0, 1)), padding_idx=num_slots
    )
    mean = rows.sum(1) / length.clamp(min=1)[:, None]
    if request is not None:
        real, rows = real[request], rows[request]
    score = torch.einsum("ie,ike->ik", query, rows) / math.sqrt(width)
    if cosine is not None and mix is not None:
        cosine = cosine.detach().masked_fill(~real, 0)
        score = mix[0] * score + mix[1] * cosine + mix[2] * score * cosine
    # The least float, not -inf: a row of padding alone would be NaN, and so would its gradient.
    score = score.masked_fill(~real, torch.finfo(score.dtype).min)
    weight = torch.softmax(score, dim=-1).masked_fill(~real, 0)
    return torch.einsum("ik,ike->ie", weight, rows), mean


def _padded(rows: Tensor) -> Tensor:
    """Columns of zeros up to a multiple of what the kernel takes at once."""
    missing = -rows.shape[1] % _LANES
    return F.pad(rows, (0, missing)) if missing else rows.contiguous()


class _Inputs(ctypes.Structure):
    """The struct of the same name in gathered_attention.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _TENSORS),
        *((name, ctypes.c_int64) for name in ("I", "M", "K", "S", "width", "threads")),
        ("scale", ctypes.c_float),
    ]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: ctypes.CDLL,
        scale: float,
        query: Tensor,
        table: Tensor,
        index: Tensor,
        *rest: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        pair, row = (len(query), index.shape[1]), (len(index), query.shape[1])
        dot, weight, mean = query.new_empty(pair), query.new_empty(pair), query.new_empty(row)
        interest = torch.empty_like(query)
        described = ctypes.byref(_described(scale, query, table, index, *rest))
        fault = kernel.fault(described)
        if fault:
            raise IndexError(f"{('request', 'length', 'index')[fault - 1]} is out of its range")
        kernel.forward(described, *_pointers(dot, weight, interest, mean))
        ctx.kernel, ctx.scale = kernel, scale
        ctx.save_for_backward(query, table, index, *rest, dot, weight)
        return interest, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_interest: Tensor, grad_mean: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, dot, weight = ctx.saved_tensors
        saved = (dot, weight, grad_interest.contiguous(), grad_mean.contiguous())
        by, grad_query = torch.empty_like(dot), torch.empty_like(inputs[0])
        grad_mix, grad_table = dot.new_zeros(len(dot), 3), torch.zeros_like(inputs[1])
        out = (by, grad_query, grad_mix, grad_table)
        described = ctypes.byref(_described(ctx.scale, *inputs))
        ctx.kernel.backward(described, *_pointers(*saved, *out))
        grad_mix = grad_mix.sum(0) if ctx.needs_input_grad[7] else None
        return None, None, grad_query, grad_table, None, None, None, grad_mix, None


def _described(
    scale: float, query: Tensor, table: Tensor, index: Tensor, *rest: Tensor | None
) -> _Inputs:
    sizes = (len(query), *index.shape, *table.shape, torch.get_num_threads())
    return _Inputs(*_pointers(query, table, index, *rest), *sizes, scale)


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]


def _check(
    query: Tensor,
    table: Tensor,
    index: Tensor,
    length: Tensor,
    cosine: Tensor | None,
    mix: Tensor | None,
    request: Tensor | None,
) -> None:
    """Raise ValueError where a shape or dtype breaks the contract of gathered_attention."""
    impressions, width = query.shape
    rows, kept = index.shape
    if (cosine is None) != (mix is None):
        raise ValueError("cosine must be given exactly when mix is")
    if request is None and rows != impressions:
        raise ValueError(f"index must have {impressions} rows, as there is no request, got {rows}")
    expected = {
        "table": (table, (table.shape[0], width), query.dtype),
        "index": (index, (rows, kept), torch.int32),
        "length": (length, (rows,), torch.int32),
        "cosine": (cosine, (impressions, kept), query.dtype),
        "mix": (mix, (3,), query.dtype),
        "request": (request, (impressions,), torch.int32),
    }
    for name, (tensor, shape, dtype) in expected.items():
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype):
            raise ValueError(
                f"{name} must be {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}"
            )
