"""The general search unit: which of a user's many past items are most like a candidate?

Shape letters: V item vectors, D their width, R requests, I impressions, T behaviours of all
requests, C candidates and L behaviours of a request, K kept behaviours, N tiers.
"""

import ctypes
from ctypes import c_int32, c_int64, c_void_p
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.on_gpu import runs_on_gpu

DTYPES = {torch.int8: "int8", torch.float32: "float32"}
CELLS = 2**24  # of padded behaviour vectors, or of pairs, that the PyTorch version holds at once


class SearchHits(NamedTuple):
    """What the search found for each impression; behaviours without a vector are not there."""

    kept: Tensor
    """(I, K) int32, places of the kept behaviours in their request, 0 the oldest: the most alike
    first, of equals the newest first. 0 beyond ``num_kept``."""
    num_kept: Tensor
    """(I,) int32, behaviours kept: the smaller of K and those that have a vector; 0 for a
    candidate without one."""
    cosine: Tensor
    """(I, K) float32, cosines of the kept behaviours to the candidate; 0 beyond ``num_kept``."""
    tiers: Tensor
    """(I, N) float32, *all* behaviours counted per tier of cosine, as
    :class:`torchrec_mm.nn.simtier.SimTier` counts them."""
    pairs: Tensor
    """(P,) float32, the cosine of each candidate to each behaviour of its request, candidate after
    candidate, oldest behaviour first; 0 where either has no vector. (0,) if not asked for."""


def general_search(
    vectors: Tensor,
    candidate_rows: Tensor,
    behaviour_rows: Tensor,
    candidate_offsets: Tensor,
    behaviour_offsets: Tensor,
    *,
    keep: int,
    num_tiers: int,
    pairs: bool = False,
) -> SearchHits:
    """Compare each candidate of a request with all its behaviours: keep K, count them all.

    cosine = dot * (1 / |candidate|) * (1 / |behaviour|), rounded to float32 from left to right; a
    zero vector has cosine 0. Of int8 vectors the dots are exact, so the compiled kernel (on the
    CPU, with ``torch.get_num_threads()`` threads), Triton's (on a GPU) and PyTorch give the same
    bits; of float32 vectors the same up to rounding. Nothing of ``vectors`` is copied but the rows
    in use.

    Source: MUSE, arXiv:2512.07216: the general search unit (top K) and SimTier over all
    similarities.

    Args:
        vectors: (V, D) int8 or float32, contiguous, finite, any length; may lie in a mapped file.
        candidate_rows: (I,) int32 or int64, row of each candidate's vector, -1 without one.
        behaviour_rows: (T,) int32 or int64, likewise, oldest first within a request.
        candidate_offsets: (R + 1,) int64, where each request's candidates begin; last I.
        behaviour_offsets: (R + 1,) int64, where each request's behaviours begin; last T.
        keep: K; 0 to keep none.
        num_tiers: N, at least 2; 0 to count none, where none is kept either.
        pairs: whether the cosine of every pair is wanted.

    Raises:
        ValueError: a dtype, shape or row breaks the contract above.
    """
    candidate_rows, behaviour_rows = candidate_rows.int(), behaviour_rows.int()
    arguments = (candidate_rows, behaviour_rows, candidate_offsets, behaviour_offsets)
    _check(vectors, *arguments, keep=keep, num_tiers=num_tiers)
    if vectors.dtype == torch.int8 and len(vectors) and runs_on_gpu(vectors, *arguments):
        return _search_on_gpu(vectors, *arguments, keep=keep, num_tiers=num_tiers, pairs=pairs)
    kernel = None
    if vectors.device.type == "cpu":
        kernel = compiled("general_search", "-ffp-contract=off")
    search = general_search_reference if kernel is None else partial(_search_in_kernel, kernel)
    return search(vectors, *arguments, keep=keep, num_tiers=num_tiers, pairs=pairs)


def _check(
    vectors: Tensor,
    candidate_rows: Tensor,
    behaviour_rows: Tensor,
    candidate_offsets: Tensor,
    behaviour_offsets: Tensor,
    *,
    keep: int,
    num_tiers: int,
) -> None:
    if vectors.dtype not in DTYPES or vectors.ndim != 2 or not vectors.is_contiguous():
        raise ValueError(
            "vectors must be contiguous int8 or float32 (V, D), "
            f"got {vectors.dtype} {tuple(vectors.shape)}"
        )
    if keep < 0 or num_tiers < 2 and (keep or num_tiers):
        rule = "keep must be at least 0, and num_tiers at least 2, or 0 where keep is 0"
        raise ValueError(f"{rule}, got {keep} and {num_tiers}")
    if candidate_offsets.shape != behaviour_offsets.shape:
        raise ValueError("candidate_offsets and behaviour_offsets must be of the same requests")
    for name, rows, offsets in (
        ("candidate", candidate_rows, candidate_offsets),
        ("behaviour", behaviour_rows, behaviour_offsets),
    ):
        if offsets.dtype != torch.int64 or offsets[0] != 0 or offsets[-1] != len(rows):
            raise ValueError(f"{name}_offsets must be int64 from 0 to {len(rows)}")
        if bool((offsets.diff() < 0).any()):
            raise ValueError(f"{name}_offsets must not fall")
        if len(rows) and not (-1 <= rows.min() and rows.max() < len(vectors)):
            raise ValueError(f"{name}_rows must lie in [-1, {len(vectors)})")


def _search_in_kernel(
    kernel: ctypes.CDLL,
    vectors: Tensor,
    candidate_rows: Tensor,
    behaviour_rows: Tensor,
    candidate_offsets: Tensor,
    behaviour_offsets: Tensor,
    *,
    keep: int,
    num_tiers: int,
    pairs: bool,
) -> SearchHits:
    impressions = len(candidate_rows)
    num_pairs = int(_num_pairs(candidate_offsets, behaviour_offsets).sum()) if pairs else 0
    found = SearchHits(
        kept=torch.empty(impressions, keep, dtype=torch.int32),
        num_kept=torch.empty(impressions, dtype=torch.int32),
        cosine=torch.empty(impressions, keep),
        tiers=torch.empty(impressions, num_tiers),
        pairs=torch.empty(num_pairs),
    )
    inputs = [
        tensor.contiguous()
        for tensor in (candidate_rows, behaviour_rows, candidate_offsets, behaviour_offsets)
    ]
    function = getattr(kernel, f"general_search_{DTYPES[vectors.dtype]}")
    function.restype = None
    function(
        c_void_p(vectors.data_ptr()),
        c_int64(vectors.shape[1]),
        *(c_void_p(tensor.data_ptr()) for tensor in inputs),
        c_int64(len(candidate_offsets) - 1),
        c_int32(keep),
        c_int32(num_tiers),
        *(c_void_p(tensor.data_ptr()) for tensor in found[:-1]),
        c_void_p(found.pairs.data_ptr() if num_pairs else None),
        c_int32(torch.get_num_threads()),
    )
    return found


def _search_on_gpu(
    vectors: Tensor,
    candidate_rows: Tensor,
    behaviour_rows: Tensor,
    candidate_offsets: Tensor,
    behaviour_offsets: Tensor,
    *,
    keep: int,
    num_tiers: int,
    pairs: bool,
) -> SearchHits:
    from torchrec_mm.kernels.triton.general_search import search

    rows = candidate_rows.contiguous(), behaviour_rows.contiguous()
    inverse = tuple(_inverse_length(vectors[of.clamp(min=0)]) for of in rows)
    offsets = candidate_offsets, behaviour_offsets
    found = SearchHits(*search(vectors, inverse, rows, offsets, keep=keep, num_tiers=num_tiers))
    return found if pairs else found._replace(pairs=found.pairs[:0])


def general_search_reference(
    vectors: Tensor,
    candidate_rows: Tensor,
    behaviour_rows: Tensor,
    candidate_offsets: Tensor,
    behaviour_offsets: Tensor,
    *,
    keep: int,
    num_tiers: int,
    pairs: bool = False,
) -> SearchHits:
    """:func:`general_search` without a kernel, on any device: padded, some requests at a time."""
    requests = len(candidate_offsets) - 1
    at_once = max(1, CELLS // max(1, _longest(behaviour_offsets) * vectors.shape[1]))
    parts = []
    for start in range(0, max(1, requests), at_once):
        part = slice(start, start + at_once + 1)
        candidates, real = _padded(candidate_rows, candidate_offsets[part])
        behaviours, is_behaviour = _padded(behaviour_rows, behaviour_offsets[part])
        width = max(1, CELLS // max(1, behaviours.numel()))
        found = [
            search_padded(vectors, some, behaviours, keep=keep, num_tiers=num_tiers)
            for some in candidates.split(width, dim=1)
        ]
        *of_impressions, cosine = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        is_pair = real[:, :, None] & is_behaviour[:, None] & pairs
        parts.append([*(of_impression[real] for of_impression in of_impressions), cosine[is_pair]])
    return SearchHits(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _num_pairs(candidate_offsets: Tensor, behaviour_offsets: Tensor) -> Tensor:
    """(R,) int64: pairs of each request."""
    return candidate_offsets.diff() * behaviour_offsets.diff()


def _longest(offsets: Tensor) -> int:
    return int(offsets.diff().max()) if len(offsets) > 1 else 0


def _padded(rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """(R, longest) of jagged rows, -1 beyond a request's end, and the mask of what is real."""
    slot = torch.arange(_longest(offsets), device=rows.device)
    real = slot < offsets.diff()[:, None]
    padded = torch.full(real.shape, -1, dtype=torch.int64, device=rows.device)
    padded[real] = rows[offsets[0] : offsets[-1]].long()
    return padded, real


def search_padded(
    vectors: Tensor, candidates: Tensor, behaviours: Tensor, *, keep: int, num_tiers: int
) -> SearchHits:
    """:class:`SearchHits` in the shape (R, C, ...) for rows (R, C) and (R, L); -1: no vector."""
    cosine = _cosine(vectors, candidates, behaviours)
    pair_mask = (candidates >= 0)[:, :, None] & (behaviours >= 0)[:, None, :]
    tiers = cosine.new_zeros(*candidates.shape, num_tiers)
    if num_tiers:
        tier = ((cosine + 1) * (num_tiers / 2)).long().clamp(0, num_tiers - 1)
        tiers.scatter_add_(-1, tier, pair_mask.float())

    # A stable sort of newest first keeps the newest of equals in front.
    newest_first = cosine.masked_fill(~pair_mask, -torch.inf).flip(-1)
    newest_first = F.pad(newest_first, (0, max(0, keep - cosine.shape[-1])), value=-torch.inf)
    best, order = newest_first.sort(dim=-1, descending=True, stable=True)
    best, order = best[..., :keep], order[..., :keep]
    kept = (cosine.shape[-1] - 1 - order).masked_fill(best == -torch.inf, 0)
    num_kept = pair_mask.sum(-1).clamp(max=keep)
    best = best.masked_fill(best == -torch.inf, 0)
    return SearchHits(kept.int(), num_kept.int(), best, tiers, cosine.masked_fill(~pair_mask, 0))


def _cosine(vectors: Tensor, candidates: Tensor, behaviours: Tensor) -> Tensor:
    """(R, C, L) float32, anything where a row is -1."""
    left, right = vectors[candidates.clamp(min=0)], vectors[behaviours.clamp(min=0)]
    whole = torch.float32 if vectors.shape[1] <= 1024 else torch.float64  # int8: exact sums
    exact = torch.float32 if vectors.dtype == torch.float32 else whole
    dot = (left.to(exact) @ right.to(exact).mT).float()
    return dot * _inverse_length(left)[:, :, None] * _inverse_length(right)[:, None, :]


def _inverse_length(vectors: Tensor) -> Tensor:
    """(..., D) -> (...) float32: 1 / length; 0 for a zero vector."""
    exact = vectors.long() if vectors.dtype == torch.int8 else vectors
    squares = exact.square().sum(-1).float()
    length = squares.double().sqrt().float()  # in float32 torch's root may be a bit off
    return torch.where(squares > 0, 1 / length, 0)
