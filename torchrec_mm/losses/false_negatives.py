"""False negatives: keys that a query must not be pushed away from, found without comparing all.

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
