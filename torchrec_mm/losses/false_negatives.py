"""False negatives: keys that a query must not be pushed away from, found without comparing all.

Shape letters: B queries, M keys, A kinds of ids, P pairs of a query and a key.
"""

import torch
from torch import Tensor

MISSING = -1  # an id that is the same as none


def shared_ids(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of a query and a key that have an id of one kind in common.

    Sorts the B and looks the M up in them: (B + M) log B steps, and memory for M + P numbers.

    Args:
        own: (B, A) int64, ids of the queries, by kind; MISSING where there is none.
        other: (M, A) int64, ids of the keys, by kind; MISSING where there is none.

    Returns:
        rows: (P,) int64 in [0, B). columns: (P,) int64 in [0, M), in ascending order. A pair that
        shares several kinds of ids is there several times.
    """
    if own.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"other must be (M, A) = (M, {own.shape[1]}), as many kinds of ids as own has, "
            f"got {tuple(other.shape)}"
        )
    if len(own) == 0 or len(other) == 0:
        return own.new_zeros(0), own.new_zeros(0)
    sorted_AB, order_AB = own.T.contiguous().sort(dim=1)
    other_AM = other.T.contiguous()
    first_AM = torch.searchsorted(sorted_AB, other_AM)
    found_AM = sorted_AB.gather(1, first_AM.clamp(max=len(own) - 1)) == other_AM
    found_AM &= other_AM != MISSING
    column, kind = found_AM.T.nonzero(as_tuple=True)  # few, in the order of the columns
    first = first_AM[kind, column]
    runs = _run_lengths(sorted_AB)[kind, first]
    within = _count_up(runs)
    kind, first = kind.repeat_interleave(runs), first.repeat_interleave(runs)
    return order_AB[kind, first + within], column.repeat_interleave(runs)


def _run_lengths(sorted_AB: Tensor) -> Tensor:
    """(A, B): at the first of equal neighbours, how many there are from here on."""
    after = torch.searchsorted(sorted_AB, sorted_AB, right=True)
    return after - torch.arange(sorted_AB.shape[1], device=sorted_AB.device)


def _count_up(runs: Tensor) -> Tensor:
    """[2, 3] -> [0, 1, 0, 1, 2]."""
    start = (runs.cumsum(0) - runs).repeat_interleave(runs)
    return torch.arange(len(start), device=runs.device) - start
