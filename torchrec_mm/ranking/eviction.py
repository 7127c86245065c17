"""Who owns a row of a table next: newcomers against owners, part by part.

Shape letters: P partitions, Q rows of each, M newcomers, V of them that get a row.
"""

import torch
from torch import Tensor

EVICTIONS = ("lfu", "lru", "distance_lfu")


def strength(eviction: str, counts: Tensor, last_steps: Tensor, now: Tensor) -> Tensor:
    """What decides, the higher the stronger; of an empty row, with zeros for both, the lowest.

    Args:
        eviction: one of EVICTIONS: counts; last_steps; counts over the steps since last_steps.
        counts: in how many steps each was seen. last_steps: the last of these, from 1.
        now: () or (1,), the step that it is.
    """
    match eviction:
        case "lfu":
            return counts
        case "lru":
            return last_steps
    return counts.double() / (now - last_steps + 1)


def contest(
    owned_PQ: Tensor, newcomers: Tensor, partition: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Let the strongest newcomer of a partition challenge its weakest row, the second the second...

    Each wins if it is stronger; of equals the owner stays, and the first newcomer or row goes
    first, so the outcome in a partition depends on nothing outside it.

    Args:
        owned_PQ: strength of each row. newcomers: (M,) strengths. partition: (M,) int64 in [0, P).

    Returns:
        (V,) newcomers that win, (V,) partition and (V,) column of the row that each wins.
    """
    weakest_PQ = owned_PQ.argsort(dim=1, stable=True)
    order = newcomers.argsort(descending=True, stable=True)
    order = order[partition[order].argsort(stable=True)]
    partition = partition[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(partition, partition)
    challenges = place < owned_PQ.shape[1]
    order, partition, place = order[challenges], partition[challenges], place[challenges]
    column = weakest_PQ[partition, place]
    wins = newcomers[order] > owned_PQ[partition, column]
    return order[wins], partition[wins], column[wins]
