"""A softmax over a bank of keys, of which each query leaves some out, in one pass over the keys.

``losses.running_softmax.RunningSoftmax`` with ``losses.false_negatives.shared_mask`` is the
definition. Shape letters: B queries, M keys, D width, A kinds of ids, R further pairs, S splits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_B, BLOCK_M = 16, 16
SPLIT_KEYS, MOST_SPLITS = 1024, 32  # a program takes so many keys or more: few queries keep it busy
LEAST = tl.constexpr(-1e38)  # below any logit; the difference of two of them is a number


def bank_softmax(
    query: Tensor,
    keys: Tensor,
    ids: Tensor,
    key_ids: Tensor,
    further: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the keys that a query does not leave out; nothing of B x M numbers is ever there.

    Args:
        query: (B, D) float32, divided by the temperature. keys: (M, D) float32, float16 or
            bfloat16, M at least 1.
        ids: (B, A) int64. key_ids: (M, A) int64: a key that shares an id of one kind with the
            query is left out; -1 is the same as none.
        further: (R, 2) int64, queries in [0, B), and an id of the first kind that each leaves out
            besides; None for none.
        valid: (M,) bool, False for a key that all leave out; None if there is none.

    Returns:
        largest: (S, B) float32 logit of each split of the keys. total: (S, B), sum of
        exp(logit - largest). weighted: (S, B, D), sum of exp(logit - largest) * key. Where all keys
        of a split are left out largest is -1e38, and the sums are 0.
    """
    (queries, width), count = query.shape, len(keys)
    splits = min(MOST_SPLITS, triton.cdiv(count, SPLIT_KEYS))
    largest, total = query.new_empty(2, splits, queries).unbind()
    weighted = query.new_empty(splits, queries, width)
    if queries == 0:
        return largest, total, weighted
    pairs, starts = by_block(further, ids)
    _kernel[(triton.cdiv(queries, BLOCK_B), splits)](
        query.contiguous(),
        keys.contiguous(),
        ids.contiguous(),
        key_ids.contiguous(),
        pairs,
        starts,
        key_ids if valid is None else valid.contiguous(),
        largest,
        total,
        weighted,
        queries,
        count,
        width,
        triton.cdiv(triton.cdiv(count, splits), BLOCK_M) * BLOCK_M,
        HAS_VALID=valid is not None,
        A=ids.shape[1],
        BLOCK_B=BLOCK_B,
        BLOCK_M=BLOCK_M,
        BLOCK_D=block_of(width),
        num_warps=8,
        num_stages=1,
    )
    return largest, total, weighted


def fits(query: Tensor) -> bool:
    """Whether a block of queries and one of keys fit into what its GPU shares within a program."""
    if not query.is_cuda:
        return True
    device = torch.cuda.get_device_properties(query.device)
    limit: int = device.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return shared_bytes(query.shape[1]) <= limit


def shared_bytes(width: int) -> int:
    """Shared memory of a program; 65 KB for D up to 512, 130 KB for D up to 1024."""
    return 4 * (BLOCK_B + BLOCK_M) * block_of(width) + 2048


def block_of(width: int) -> int:
    """D as a power of two."""
    return max(16, triton.next_power_of_2(width))


def by_block(further: Tensor | None, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Further pairs in the order of their queries, and where those of each block of them begin."""
    if further is None:
        further = ids.new_empty(0, 2)
    rows, order = further[:, 0].sort()
    ends = torch.arange(0, len(ids) + BLOCK_B, BLOCK_B, device=ids.device)
    return further[order].contiguous(), torch.searchsorted(rows.contiguous(), ends)


@triton.jit
def _kernel(
    query, keys, ids, key_ids, further, starts, valid, largest, total, weighted,
    B, M, D, per_split,
    HAS_VALID: tl.constexpr, A: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    block, split = tl.program_id(0), tl.program_id(1)
    rows, columns = block * BLOCK_B + tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_D)
    is_row, is_column = rows < B, columns < D
    at = rows[:, None].to(tl.int64) * D + columns
    in_both = is_row[:, None] & is_column
    q = tl.load(query + at, mask=in_both, other=0.0)
    top = tl.full([BLOCK_B], LEAST, tl.float32)
    summed = tl.zeros([BLOCK_B], tl.float32)
    mean = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
    first, last = tl.load(starts + block), tl.load(starts + block + 1)
    end = tl.minimum(M, (split + 1) * per_split)
    for begin in range(split * per_split, end, BLOCK_M):
        places = begin + tl.arange(0, BLOCK_M)
        is_key = places < end
        key_at = places[:, None].to(tl.int64) * D + columns
        key = tl.load(keys + key_at, mask=is_key[:, None] & is_column, other=0.0).to(tl.float32)
        takes = is_row[:, None] & is_key
        if HAS_VALID:
            takes &= tl.load(valid + places, mask=is_key, other=0).to(tl.int1)[None, :]
        for kind in tl.static_range(A):
            mine = tl.load(ids + rows * A + kind, mask=is_row, other=-1)
            theirs = tl.load(key_ids + places.to(tl.int64) * A + kind, mask=is_key, other=-1)
            takes &= (mine[:, None] != theirs[None, :]) | (theirs == -1)[None, :]
        first_ids = tl.load(key_ids + places.to(tl.int64) * A, mask=is_key, other=-1)
        for pair in range(first, last):
            row, an_id = tl.load(further + 2 * pair), tl.load(further + 2 * pair + 1)
            is_found = (first_ids == an_id) & (first_ids != -1)
            takes &= (rows != row)[:, None] | (is_found == 0)[None, :]
        logit = tl.dot(q, tl.trans(key), input_precision="ieee")
        logit = tl.where(takes, logit, LEAST)
        higher = tl.maximum(top, tl.max(logit, axis=1))
        shrink = tl.exp(top - higher)
        weight = tl.where(takes, tl.exp(logit - higher[:, None]), 0.0)
        summed = summed * shrink + tl.sum(weight, axis=1)
        mean = mean * shrink[:, None] + tl.dot(weight, key, input_precision="ieee")
        top = higher
    out = split.to(tl.int64) * B + rows
    tl.store(largest + out, top, mask=is_row)
    tl.store(total + out, summed, mask=is_row)
    tl.store(weighted + out[:, None] * D + columns, mean, mask=in_both)
