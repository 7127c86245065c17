"""Retrieval: where among all items does what was bought come out?

Vectors are unit vectors, judged by their cosine. Cosines are computed in float64, and two that
differ by at most ``TIE`` are equal: rounding moves a cosine of D numbers by less than D * 1.2e-16,
so equal vectors always tie, whatever the chunks and the machine. Others come that near by chance in
about N * 1e-11 of the queries.

Shape letters: Q queries, N items, H hard-negative slots, D vector width.
"""

import torch
from torch import Tensor

__all__ = ["hard_negative_accuracy", "mean_reciprocal_rank", "purchased_ranks", "recall_at"]

TIE = 1e-12
CHUNK_QUERIES = 512  # by the next line's items, in float64: 64 MiB of cosines at a time
CHUNK_ITEMS = 16_384


def purchased_ranks(
    queries: Tensor,
    items: Tensor,
    present: Tensor,
    purchased: Tensor,
    chunk_queries: int = CHUNK_QUERIES,
    chunk_items: int = CHUNK_ITEMS,
) -> Tensor:
    """Rank of each query's purchased item among all items, exactly.

    A tie counts one half: 1 + items above + (other items equal) / 2. Items without a vector come
    last, all tied. Memory beyond the arguments: ``chunk_queries * chunk_items`` float64 scores and
    one chunk of items, however many items there are.

    Args:
        queries: (Q, D) unit vectors; the work is done on their device.
        items: (N, D) unit vectors on any device, anything where not present.
        present: (N,) bool, True where the item has a vector.
        purchased: (Q,) int64 row of the purchased item in ``items``.
        chunk_queries: queries scored at once.
        chunk_items: items scored at once.

    Returns:
        (Q,) float64 on the device of the queries, in [1, N].

    >>> items = torch.eye(3)
    >>> purchased_ranks(items[:2], items, torch.tensor([True] * 3), torch.tensor([0, 2]))
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    # Summed in another order than the chunks' products: equal up to TIE, never to the bit.
    own = cosine_to(queries, items, present, purchased)
    above, equal = count_above(queries, own, items, present, chunk_queries, chunk_items)
    return 1 + above.double() + (equal.double() - 1) / 2  # equal counts the item itself


def count_above(
    queries: Tensor,
    own: Tensor,
    items: Tensor,
    present: Tensor,
    chunk_queries: int = CHUNK_QUERIES,
    chunk_items: int = CHUNK_ITEMS,
) -> tuple[Tensor, Tensor]:
    """How many items are nearer to each query than a given cosine, and how many as near.

    Args:
        queries: (Q, D) unit vectors; the work is done on their device.
        own: (Q,) float64 cosine to compare with; -inf is what items without a vector score.
        items: (N, D) unit vectors on any device, anything where not present.
        present: (N,) bool, True where the item has a vector.
        chunk_queries: queries scored at once.
        chunk_items: items scored at once.

    Returns:
        (Q,) int64 items above by more than ``TIE``, (Q,) int64 items within ``TIE``.
    """
    queries = queries.double()
    above, not_below = torch.zeros_like(own, dtype=torch.int64).repeat(2, 1)
    for chunk, has in zip(items.split(chunk_items), present.split(chunk_items), strict=True):
        # In float64 a chunk at a time, so that the items may stay where and as they are.
        chunk, absent = chunk.to(queries), ~has.to(queries.device)
        for start in range(0, len(queries), chunk_queries):
            rows = slice(start, start + chunk_queries)
            # After the product: whatever an absent item holds, NaN too, stays in its column.
            score = (queries[rows] @ chunk.T).masked_fill_(absent, -torch.inf)
            above[rows] += (score > own[rows, None] + TIE).sum(dim=1, dtype=torch.int32)
            not_below[rows] += (score >= own[rows, None] - TIE).sum(dim=1, dtype=torch.int32)
    return above, not_below - above


def cosine_to(queries: Tensor, items: Tensor, present: Tensor, rows: Tensor) -> Tensor:
    """Cosine of each query to one item.

    Args:
        queries: (Q, D) unit vectors.
        items: (N, D) unit vectors on any device.
        present: (N,) bool, True where the item has a vector.
        rows: (Q,) int64 row of ``items``.

    Returns:
        (Q,) float64 on the device of the queries, -inf where the item has no vector.
    """
    chosen = items[rows.to(items.device)].to(queries.device)
    known = present[rows.to(present.device)].to(queries.device)
    return (queries.double() * chosen.double()).sum(dim=1).masked_fill(~known, -torch.inf)


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of queries whose purchased item ranks within the first k, in [0, 1].

    Args:
        ranks: (Q,) float, Q > 0, as ``purchased_ranks`` gives them.
        k: at least 1.

    >>> recall_at(torch.tensor([1.0, 2.5, 11.0, 4.0]), k=10)
    0.75
    """
    return (ranks <= k).double().mean().item()


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Mean of 1 / rank, in (0, 1].

    Args:
        ranks: (Q,) float, Q > 0, as ``purchased_ranks`` gives them.

    >>> mean_reciprocal_rank(torch.tensor([1.0, 2.0]))
    0.75
    """
    return ranks.reciprocal().mean().item()


def hard_negative_accuracy(
    queries: Tensor, items: Tensor, present: Tensor, purchased: Tensor, hard: Tensor
) -> float | None:
    """How often what was bought is closer to the query than what was only clicked.

    Args:
        queries: (Q, D) unit vectors.
        items: (N, D) unit vectors on any device.
        present: (N,) bool, True where the item has a vector.
        purchased: (Q,) int64 rows of ``items``.
        hard: (Q, H) int64 rows of ``items``, -1 in empty slots.

    Returns:
        Share of (query, hard negative) pairs in the right order, a tie one half, over the pairs
        whose both items have a vector; None when there is none.

    >>> items, rows = torch.eye(3), torch.tensor([0, 1])
    >>> there, hard = torch.tensor([True] * 3), torch.tensor([[1, -1], [2, 0]])
    >>> hard_negative_accuracy(items[:2], items, there, rows, hard)
    1.0
    """
    bought = cosine_to(queries, items, present, purchased)
    twice_right, pairs = 0, 0
    for slot in hard.to(queries.device).unbind(dim=1):  # (Q, H, D) at once would be H times as much
        clicked = cosine_to(queries, items, present, slot.clamp(min=0))
        counts = (slot >= 0) & bought.isfinite() & clicked.isfinite()
        ahead = (bought - clicked)[counts]
        # Twice, so that the half of a tie is a whole number.
        twice_right += int((ahead > TIE).sum() + (ahead >= -TIE).sum())
        pairs += len(ahead)
    return twice_right / 2 / pairs if pairs else None
