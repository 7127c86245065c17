"""The general search on a GPU: each impression's cosines, tiers and best behaviours.

``kernels.general_search.general_search_reference`` is the definition. Dots of int8 are sums of
whole numbers, so results have its bits.

Shape letters: V item vectors, D width, I impressions, T behaviours of all requests, P pairs of an
impression and a behaviour of its request, K kept behaviours, N tiers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_L, BLOCK_PICK = 32, 1024


def search(
    vectors: Tensor,
    inverse_lengths: tuple[Tensor, ...],
    rows: tuple[Tensor, ...],
    offsets: tuple[Tensor, ...],
    *,
    keep: int,
    num_tiers: int,
) -> tuple[Tensor, ...]:
    """Compare each impression's vector with those of its request's behaviours.

    Waits for the device once, to learn P.

    Args:
        vectors: (V, D) int8, V at least 1.
        inverse_lengths: (I,) and (T,) float32, of the vectors of the rows.
        rows: (I,) and (T,) int32 in [-1, V), of impressions and behaviours; -1: no vector.
        offsets: two of (R + 1,) int64, where each request's impressions and behaviours begin.
        keep: K. num_tiers: N, 0 to count none.

    Returns:
        kept (I, K) int32, num_kept (I,) int32, cosine (I, K), tiers (I, N) and pairs (P,) float32
        as of ``general_search``.
    """
    impressions, width = len(rows[0]), vectors.shape[1]
    lists, num_pairs = lists_of_impressions(offsets[0], offsets[1], impressions)
    pairs, known = vectors.new_zeros(2, num_pairs, dtype=torch.float32).unbind()
    tiers = pairs.new_zeros(impressions, num_tiers)
    kept = torch.zeros(impressions, keep, dtype=torch.int32, device=vectors.device)
    cosine, num_kept = pairs.new_zeros(impressions, keep), kept.new_zeros(impressions)
    if impressions:
        tiles = {"BLOCK_L": BLOCK_L, "BLOCK_D": max(16, triton.next_power_of_2(width))}
        _compare[(impressions,)](
            vectors, *rows, *inverse_lengths, *lists, pairs, known, tiers, width, num_tiers,
            **tiles, BLOCK_N=triton.next_power_of_2(max(num_tiers, 2)),
        )  # fmt: skip
        _pick[(impressions,)](
            pairs, known, *lists[1:], kept, num_kept, cosine, keep, BLOCK=BLOCK_PICK
        )
    return kept, num_kept, cosine, tiers, pairs


def lists_of_impressions(
    candidate_offsets: Tensor, behaviour_offsets: Tensor, impressions: int
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """(I,) int64 each: first behaviour of the request, how many, and the first pair; and P."""
    requests = torch.arange(len(candidate_offsets) - 1, device=candidate_offsets.device)
    request = requests.repeat_interleave(candidate_offsets.diff(), output_size=impressions)
    behaviours = behaviour_offsets.diff()[request]
    ends = behaviours.cumsum(0)
    num_pairs = int(ends[-1]) if impressions else 0
    return (behaviour_offsets[request], behaviours, ends - behaviours), num_pairs


@triton.jit
def _compare(
    vectors, candidate_rows, behaviour_rows, candidate_inverse, behaviour_inverse,
    first_behaviour, behaviours, first_pair, pairs, known, tiers, D, N,
    BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    impression = tl.program_id(0).to(tl.int64)
    row = tl.load(candidate_rows + impression).to(tl.int64)
    columns, numbers = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    own = tl.load(vectors + row * D + columns, mask=(columns < D) & (row >= 0), other=0)
    start, many = tl.load(first_behaviour + impression), tl.load(behaviours + impression)
    out, inverse = tl.load(first_pair + impression), tl.load(candidate_inverse + impression)
    counts = tl.zeros([BLOCK_N], tl.int32)
    for begin in range(0, many, BLOCK_L):
        places = begin + tl.arange(0, BLOCK_L)
        is_one = places < many
        rows = tl.load(behaviour_rows + start + places, mask=is_one, other=-1).to(tl.int64)
        is_known = (rows >= 0) & (row >= 0)
        mask = is_known[:, None] & (columns < D)
        other = tl.load(vectors + rows[:, None] * D + columns, mask=mask, other=0)
        dot = tl.sum(own.to(tl.int32)[None, :] * other.to(tl.int32), axis=1)
        theirs = tl.load(behaviour_inverse + start + places, mask=is_one, other=0.0)
        cosine = dot.to(tl.float32) * inverse * theirs
        tl.store(pairs + out + places, tl.where(is_known, cosine, 0.0), mask=is_one)
        tl.store(known + out + places, is_known.to(tl.float32), mask=is_one)
        tier = ((cosine + 1.0) * (N / 2)).to(tl.int32)
        tier = tl.minimum(tl.maximum(tier, 0), N - 1)
        counts += tl.sum(((tier[:, None] == numbers) & is_known[:, None]).to(tl.int32), axis=0)
    tl.store(tiers + impression * N + numbers, counts.to(tl.float32), mask=numbers < N)


@triton.jit
def _pick(pairs, known, behaviours, first_pair, kept, num_kept, cosine, K, BLOCK: tl.constexpr):
    """The best first, of equals the newest; each pass looks for the best after the one before."""
    impression = tl.program_id(0).to(tl.int64)
    start, many = tl.load(first_pair + impression), tl.load(behaviours + impression)
    last, last_place, found = 4.0, many, 0
    for slot in range(0, K):
        best, place = -4.0, many * 0 - 1
        for begin in range(0, many, BLOCK):
            places = begin + tl.arange(0, BLOCK)
            value = tl.load(pairs + start + places, mask=places < many, other=-4.0)
            is_known = tl.load(known + start + places, mask=places < many, other=0.0) > 0
            is_after = (value < last) | ((value == last) & (places < last_place))
            value = tl.where(is_known & is_after, value, -4.0)
            top = tl.max(value, axis=0)
            newest = tl.max(tl.where(value == top, places, -1), axis=0).to(place.dtype)
            place = tl.where(top >= best, newest, place)
            best = tl.maximum(best, top)
        if best > -4.0:
            tl.store(kept + impression * K + slot, place.to(tl.int32))
            tl.store(cosine + impression * K + slot, best)
            found += 1
            last, last_place = best, place
        else:
            last = -4.0
    tl.store(num_kept + impression, found)
