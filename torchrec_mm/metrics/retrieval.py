"""Retrieval: where among all items does what was bought come out?

Shape letters: Q queries, N items, M modalities, D vector width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vectors:
    """Unit vectors per modality, some of them missing.

    values: (R, M, D) float; anything where missing. mask: (R, M) bool, True where present.
    """

    values: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor) -> "Vectors":
        return Vectors(self.values[rows], self.mask[rows])

    def flat(self) -> Tensor:
        """(R, M * D) float, zeros where missing: dot products sum the cosines both sides have."""
        return self.values.masked_fill(~self.mask[..., None], 0).flatten(1)


def purchased_ranks(
    queries: Vectors, items: Vectors, purchased: Tensor, chunk_queries: int = 256
) -> Tensor:
    """Rank of each query's purchased item among all items, exactly, a chunk of queries at a time.

    Items are ordered by the mean cosine over the modalities that query and item both have; items
    that share none come last. A tie counts one half: 1 + items above + (other items equal) / 2.
    Items with equal vectors are scored once, so that rounding never breaks their tie.

    Args:
        queries: Q rows.
        items: N rows, with the same M and D.
        purchased: (Q,) int64 row of the purchased item in ``items``.
        chunk_queries: queries scored at once; memory is this times N floats.

    Returns:
        (Q,) float64, at least 1.
    """
    flat = torch.cat([items.flat(), items.mask.to(items.values.dtype)], dim=1)
    distinct, inverse, copies = torch.unique(flat, dim=0, return_inverse=True, return_counts=True)
    vectors, mask = distinct.split([flat.shape[1] - items.mask.shape[1], items.mask.shape[1]], 1)
    wanted = inverse[purchased]
    ranks = []
    for start in range(0, len(queries), chunk_queries):
        rows = slice(start, start + chunk_queries)
        shared = queries.mask[rows].to(mask.dtype) @ mask.T
        score = (queries.flat()[rows] @ vectors.T) / shared.clamp(min=1)
        score = score.masked_fill(shared == 0, -torch.inf)
        own = score.gather(1, wanted[rows, None])
        above = ((score > own) * copies).sum(dim=1)
        equal = ((score == own) * copies).sum(dim=1)  # counts the purchased item itself
        ranks.append(1 + above.double() + (equal.double() - 1) / 2)
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.float64)


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of queries whose purchased item ranks within the first k; (Q,) ranks, Q > 0."""
    return (ranks <= k).double().mean().item()


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Mean of 1 / rank, in (0, 1]; (Q,) ranks, Q > 0."""
    return ranks.reciprocal().mean().item()


def hard_negative_accuracy(
    queries: Vectors, items: Vectors, purchased: Tensor, hard: Tensor
) -> float | None:
    """How often what was bought is closer to the query than what was only clicked.

    Args:
        queries: Q rows.
        items: N rows, with the same M and D.
        purchased: (Q,) int64 rows of ``items``.
        hard: (Q, H) int64 rows of ``items``, -1 in empty slots.

    Returns:
        Share of (query, hard negative) pairs in the right order, a tie one half, over the pairs
        whose three members can be compared; None when there is none.
    """
    query_of_pair, slot = torch.nonzero(hard >= 0, as_tuple=True)
    query = queries[query_of_pair]
    bought, bought_known = _pair_cosine(query, items[purchased[query_of_pair]])
    clicked, clicked_known = _pair_cosine(query, items[hard[query_of_pair, slot]])
    comparable = bought_known & clicked_known
    if not comparable.any():
        return None
    right = (bought > clicked).double() + (bought == clicked).double() / 2
    return right[comparable].mean().item()


def _pair_cosine(one: Vectors, other: Vectors) -> tuple[Tensor, Tensor]:
    shared = (one.mask & other.mask).sum(dim=1)
    return (one.flat() * other.flat()).sum(dim=1) / shared.clamp(min=1), shared > 0
