"""Attention over behaviours that are read where they lie, forward and backward.

``kernels.gathered_attention.gathered_attention_reference`` is the definition. Gradients of rows
that several impressions use are added up by atomics, in an order that differs from run to run.

Shape letters: I impressions, M rows of index, K kept behaviours, S slots, E width.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_K = 32


class GatheredAttention(torch.autograd.Function):
    """The arguments, and what is returned, as of ``gathered_attention``; all float32."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        table: Tensor,
        index: Tensor,
        length: Tensor,
        cosine: Tensor | None,
        mix: Tensor | None,
        request: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        query, table, index = query.contiguous(), table.contiguous(), index.contiguous()
        cosine = None if cosine is None else cosine.contiguous()
        given = (query, table, index, length.contiguous(), cosine, mix, request)
        interest, norm = torch.zeros_like(query), query.new_empty(len(query))
        mean = query.new_zeros(len(index), query.shape[1])
        if len(query):
            _forward[(len(query),)](*_inputs(given), interest, norm, **_sizes(given))
        if len(index):
            _mean[(len(index),)](table, index, given[3], mean, **_shape(given))
        ctx.save_for_backward(*given, interest, norm)
        return interest, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_interest: Tensor, of_mean: Tensor) -> tuple[Tensor | None, ...]:
        *given, interest, norm = ctx.saved_tensors
        query, table, index, length, _, mix, _ = given
        of_query, of_table = torch.zeros_like(query), torch.zeros_like(table)
        of_mix = query.new_zeros(len(query), 3)
        if len(query):
            outputs = (of_interest.contiguous(), of_query, of_table, of_mix)
            _backward[(len(query),)](*_inputs(given), interest, norm, *outputs, **_sizes(given))
        if len(index):
            _mean_backward[(len(index),)](
                of_mean.contiguous(), index, length, of_table, **_shape(given)
            )
        return of_query, of_table, None, None, None, None if mix is None else of_mix.sum(0), None


def _inputs(given: Any) -> list[Tensor]:
    """Something to point at instead of None, which is not read."""
    query, table, index, length, cosine, mix, request = given
    return [query, table, index, length, *(query if x is None else x for x in (cosine, mix)),
            length if request is None else request]  # fmt: skip


def _shape(given: Any) -> dict[str, Any]:
    width = given[0].shape[1]
    block = max(16, triton.next_power_of_2(width))
    return {"K": given[2].shape[1], "E": width, "BLOCK_K": BLOCK_K, "BLOCK_E": block}


def _sizes(given: Any) -> dict[str, Any]:
    has = {"HAS_COSINE": given[4] is not None, "HAS_REQUEST": given[6] is not None}
    return _shape(given) | has | {"scale": given[0].shape[1] ** -0.5}


@triton.jit
def _rows(table, index, row, begin, length, K, E, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr):
    """Some behaviours of a row of index: where they are, which are real, and their rows."""
    kept, columns = begin + tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_E)
    is_real = kept < length
    slot = tl.load(index + row.to(tl.int64) * K + kept, mask=is_real, other=0).to(tl.int64)
    at = slot[:, None] * E + columns
    mask = is_real[:, None] & (columns < E)
    return kept, is_real, at, mask, tl.load(table + at, mask=mask, other=0.0)


@triton.jit
def _forward(
    query, table, index, length, cosine, mix, request, interest, norm,
    K, E, scale,
    HAS_COSINE: tl.constexpr, HAS_REQUEST: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    impression = tl.program_id(0).to(tl.int64)
    row = tl.load(request + impression).to(tl.int64) if HAS_REQUEST else impression
    columns, many = tl.arange(0, BLOCK_E), tl.load(length + row)
    q = tl.load(query + impression * E + columns, mask=columns < E, other=0.0)
    top, total = -float("inf"), 0.0
    summed = tl.zeros([BLOCK_E], tl.float32)
    for begin in range(0, many, BLOCK_K):
        kept, is_real, _, _, v = _rows(table, index, row, begin, many, K, E, BLOCK_K, BLOCK_E)
        score = tl.sum(q[None, :] * v, axis=1) * scale
        if HAS_COSINE:
            c = tl.load(cosine + impression * K + kept, mask=is_real, other=0.0)
            score = tl.load(mix) * score + tl.load(mix + 1) * c + tl.load(mix + 2) * score * c
        score = tl.where(is_real, score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, axis=0))
        weight = tl.exp(score - higher)
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(weight, axis=0)
        summed = summed * shrink + tl.sum(weight[:, None] * v, axis=0)
        top = higher
    if many > 0:
        tl.store(interest + impression * E + columns, summed / total, mask=columns < E)
        tl.store(norm + impression, top + tl.log(total))


@triton.jit
def _backward(
    query, table, index, length, cosine, mix, request, interest, norm,
    of_interest, of_query, of_table, of_mix,
    K, E, scale,
    HAS_COSINE: tl.constexpr, HAS_REQUEST: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    impression = tl.program_id(0).to(tl.int64)
    row = tl.load(request + impression).to(tl.int64) if HAS_REQUEST else impression
    columns, many = tl.arange(0, BLOCK_E), tl.load(length + row)
    own, is_column = impression * E + columns, columns < E
    q = tl.load(query + own, mask=is_column, other=0.0)
    g = tl.load(of_interest + own, mask=is_column, other=0.0)
    together = tl.sum(g * tl.load(interest + own, mask=is_column, other=0.0), axis=0)
    of_q = tl.zeros([BLOCK_E], tl.float32)
    of_a, of_b, of_c = 0.0, 0.0, 0.0
    for begin in range(0, many, BLOCK_K):
        kept, is_real, at, mask, v = _rows(table, index, row, begin, many, K, E, BLOCK_K, BLOCK_E)
        dot = tl.sum(q[None, :] * v, axis=1) * scale
        score, slope = dot, tl.full([BLOCK_K], 1.0, tl.float32)
        if HAS_COSINE:
            c = tl.load(cosine + impression * K + kept, mask=is_real, other=0.0)
            a, b, ab = tl.load(mix), tl.load(mix + 1), tl.load(mix + 2)
            score, slope = a * dot + b * c + ab * dot * c, a + ab * c
        weight = tl.where(is_real, tl.exp(score - tl.load(norm + impression)), 0.0)
        of_score = weight * (tl.sum(g[None, :] * v, axis=1) - together)
        if HAS_COSINE:
            of_a += tl.sum(of_score * dot, axis=0)
            of_b += tl.sum(of_score * c, axis=0)
            of_c += tl.sum(of_score * dot * c, axis=0)
        of_dot = of_score * slope * scale
        of_q += tl.sum(of_dot[:, None] * v, axis=0)
        of_v = weight[:, None] * g[None, :] + of_dot[:, None] * q[None, :]
        tl.atomic_add(of_table + at, of_v, mask=mask)
    tl.store(of_query + own, of_q, mask=is_column)
    if HAS_COSINE:
        tl.store(of_mix + impression * 3, of_a)
        tl.store(of_mix + impression * 3 + 1, of_b)
        tl.store(of_mix + impression * 3 + 2, of_c)


@triton.jit
def _mean(table, index, length, mean, K, E, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns, many = tl.arange(0, BLOCK_E), tl.load(length + row)
    summed = tl.zeros([BLOCK_E], tl.float32)
    for begin in range(0, many, BLOCK_K):
        _, _, _, _, v = _rows(table, index, row, begin, many, K, E, BLOCK_K, BLOCK_E)
        summed += tl.sum(v, axis=0)
    tl.store(mean + row * E + columns, summed / tl.maximum(many, 1), mask=columns < E)


@triton.jit
def _mean_backward(
    of_mean, index, length, of_table, K, E, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns, many = tl.arange(0, BLOCK_E), tl.load(length + row)
    g = tl.load(of_mean + row * E + columns, mask=columns < E, other=0.0) / tl.maximum(many, 1)
    for begin in range(0, many, BLOCK_K):
        kept = begin + tl.arange(0, BLOCK_K)
        slot = tl.load(index + row * K + kept, mask=kept < many, other=0).to(tl.int64)
        mask = (kept < many)[:, None] & (columns < E)
        same = tl.zeros([BLOCK_K, BLOCK_E], tl.float32) + g[None, :]
        tl.atomic_add(of_table + slot[:, None] * E + columns, same, mask=mask)
