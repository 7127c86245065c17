"""False negatives: keys that a query must not be pushed away from, found without comparing all.

Where a processor counts what is equal. Where to ask how many are would be to wait for a device, all
pairs of a chunk are compared.

Shape letters: B queries, M keys, A kinds of ids, P pairs of a query and a key.
"""

import torch
from torch import Tensor

MISSING = -1  # an id that is the same as none

_LAST_BITS = 2**16 - 1  # a table of 64 KiB, which a processor's cache holds


def shared_ids(own: Tensor, other: Tensor, further: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pairs of a query and a key that have an id of one kind in common.

    Looks the last bits of the M keys' ids up in a table, and those few that are in it among the
    sorted ids of the B queries: memory for M + P numbers, never for B x M.

    Args:
        own: (B, A) int64, ids of the queries, by kind; MISSING where there is none.
        other: (M, A) int64, ids of the keys, by kind; MISSING where there is none.
        further: (R, 2) int64, queries in [0, B), and an id of the first kind that each has besides.

    Returns:
        rows: (P,) int64 in [0, B). columns: (P,) int64 in [0, M), in ascending order. A pair that
        shares several kinds of ids is there several times.
    """
    if own.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"other must be (M, A) = (M, {own.shape[1]}), as many kinds of ids as own has, "
            f"got {tuple(other.shape)}"
        )
    pairs = [_same(*ids) for ids in zip(own.unbind(dim=1), other.unbind(dim=1), strict=True)]
    if further is not None:
        place, column = _same(further[:, 1], other[:, 0])
        pairs.append((further[place, 0], column))
    rows, columns = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    columns, order = columns.sort()
    return rows[order], columns


def shared_mask(own: Tensor, other: Tensor, further: Tensor | None = None) -> Tensor:
    """The pairs of ``shared_ids`` as (B, M) bool, True where an id is shared.

    Takes B x M bytes, and waits for no device.
    """
    is_same = (own[:, None] == other[None]) & (other != MISSING)
    mask = is_same.any(dim=2)
    if further is None:
        return mask
    found = (further[:, 1:] == other[None, :, 0]) & (other[:, 0] != MISSING)
    counts = torch.zeros(mask.shape, dtype=torch.int32, device=own.device)
    return mask | (counts.index_add_(0, further[:, 0], found.int()) > 0)


def _same(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of equal ids, (B,) against (M,)."""
    table = torch.zeros(_LAST_BITS + 1, dtype=torch.bool, device=own.device)
    table[own & _LAST_BITS] = True
    column = (table[other & _LAST_BITS] & (other != MISSING)).nonzero()[:, 0]
    own, order = own.sort()
    ids = other[column]
    first = torch.searchsorted(own, ids)
    runs = torch.searchsorted(own, ids, right=True) - first  # 0 where only the last bits are equal
    row = first.repeat_interleave(runs) + _count_up(runs)
    return order[row], column.repeat_interleave(runs)


def _count_up(runs: Tensor) -> Tensor:
    """[2, 3] -> [0, 1, 0, 1, 2]."""
    start = (runs.cumsum(0) - runs).repeat_interleave(runs)
    return torch.arange(len(start), device=runs.device) - start
