"""The items nearest to a query by cosine: exact, block by block, the same on every machine.

Values are rounded to multiples of 2^-26, so that float64 adds up the products of two unit vectors
without rounding, in whatever order a BLAS does: sums stay below 2^53 units of 2^-52. Equal vectors
thus have exactly equal cosines, and ties can be broken by id. Costs at most 1e-6 of a cosine.

Shape letters: Q queries, N items with a vector, B items of a block, D item-vector width, k
neighbours of a query.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.sort_keys import NOTHING, pack, unpack
from torchrec_mm.item_vectors.store import ItemVectors

BLOCK_ITEMS, BLOCK_QUERIES = 2048, 256  # their cosines fit the second-level cache
STEPS = 2.0**26  # values are kept as whole numbers of 1 / STEPS


@dataclass(frozen=True)
class NeighbourHits:
    """The neighbours of Q queries, nearest first, equal cosines by ascending item_id.

    k is never more than N.

    rows: (Q, k) int64 rows of the item vectors, -1 in slots for which no item is left.
    cosines: (Q, k) float32 in [-1, 1], -inf in those slots.

    >>> hits = NeighbourHits(rows=np.array([[1, -1]]), cosines=np.float32([[0.5, -np.inf]]))
    >>> hits.named(item_ids=np.array([10, 30]))
    [[(30, 0.5)]]
    """

    rows: np.ndarray
    cosines: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(Q, k) bool, True where a slot holds a neighbour."""
        return self.rows >= 0

    def named(self, item_ids: np.ndarray) -> list[list[tuple[int, float]]]:
        """Each query's neighbours as (item_id, cosine); ``item_ids`` (N,) are those of the rows."""
        return [
            list(zip(item_ids[rows[mask]].tolist(), cosines[mask].tolist(), strict=True))
            for rows, cosines, mask in zip(self.rows, self.cosines, self.mask, strict=True)
        ]


class Search(Protocol):
    """What ``Neighbours`` and ``FaissIndex`` have in common."""

    vectors: ItemVectors

    def search(
        self, queries: np.ndarray, k: int, excluded: np.ndarray | None = None
    ) -> NeighbourHits:
        """See ``Neighbours.search``."""


class Neighbours:
    """Exact search over item vectors that stay on disk; memory does not grow with N.

    >>> two = [[0.0, 2.0], [3.0, 4.0]]
    >>> write_item_vectors(folder, [10, 30], two, dtype="float32", encoder="a", modality="text")
    >>> vectors = ItemVectors.open(folder)
    >>> hits = Neighbours(vectors).search(np.array([[1.0, 1.0]]), k=2)
    >>> vectors.item_ids[hits.rows].tolist()
    [[30, 10]]
    """

    def __init__(self, vectors: ItemVectors) -> None:
        """``vectors``: read a block at a time, at each search anew."""
        self.vectors = vectors

    def search(
        self, queries: np.ndarray, k: int, excluded: np.ndarray | None = None
    ) -> NeighbourHits:
        """Find the k nearest items of each query.

        Args:
            queries: (Q, D) float of any length but zero.
            k: neighbours wanted of each, at least 1; of more than N only N are looked for.
            excluded: (Q,) int64, an item_id that is no neighbour of its query; one without a
                vector excludes nothing. None: no query excludes any.

        Raises:
            InputError: queries of another width, zero or not finite.
        """
        check_queries(queries, self.vectors.width)
        query_QD = whole_steps(queries)
        own_Q = torch.full((len(queries),), -1)
        if excluded is not None:
            own_Q = torch.from_numpy(self.vectors.rows(excluded))
        best_QK = torch.full((len(queries), min(k, len(self.vectors))), NOTHING)
        for start in range(0, len(self.vectors), BLOCK_ITEMS):
            item_BD = whole_steps(self.vectors.values[start : start + BLOCK_ITEMS])
            rows_B = torch.arange(start, start + len(item_BD))
            for block in range(0, len(queries), BLOCK_QUERIES):
                tile = slice(block, block + BLOCK_QUERIES)
                keys = pack(_cosines(query_QD[tile] @ item_BD.T), rows_B)
                _exclude(keys, own_Q[tile] - start)  # rows within this block
                best_QK[tile] = _merge(best_QK[tile], keys)
        return _found(best_QK)


def neighbours_of(search: Search, item_ids: np.ndarray, k: int) -> NeighbourHits:
    """The neighbours of items, themselves left out.

    Args:
        search: exact or not.
        item_ids: (Q,) int64.
        k: neighbours wanted of each.

    Raises:
        InputError: an item has no vector.
    """
    values, mask = search.vectors.lookup(item_ids)
    if not mask.all():
        rule = f"items must have a vector in {search.vectors.folder}"
        raise InputError(f"{rule}, got {item_ids[~mask][0]}")
    return search.search(values.astype(np.float32), k, excluded=item_ids)


def rank(queries: np.ndarray, vectors: ItemVectors, rows: np.ndarray, k: int) -> NeighbourHits:
    """The k nearest of some candidates, by the exact cosine.

    Args:
        queries: (Q, D) float, not zero.
        vectors: where the candidates are.
        rows: (Q, M) int64, candidates of each query, -1 in empty slots; none twice in a row.
        k: neighbours wanted of each.
    """
    values, mask = vectors.gather(rows)
    candidate_QMD = whole_steps(values.reshape(-1, vectors.width)).view(*values.shape)
    cosine_QM = _cosines(torch.einsum("qd,qmd->qm", whole_steps(queries), candidate_QMD))
    keys = pack(cosine_QM, torch.from_numpy(rows).clamp(min=0))
    keys.masked_fill_(torch.from_numpy(~mask), NOTHING)
    return _found(keys.topk(min(k, rows.shape[1])).values)


def check_queries(queries: np.ndarray, width: int) -> None:
    """Raise InputError unless queries are (Q, width), finite, and none is zero."""
    if queries.ndim != 2 or queries.shape[1] != width:
        raise InputError(f"queries must be (Q, {width}) as the item vectors, got {queries.shape}")
    if not np.isfinite(queries).all() or not queries.any(axis=1).all():
        raise InputError("queries must be finite and not zero, got one that is not")


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, D) of any number type -> float64 of unit length, zeros where zero."""
    wide = vectors.astype(np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return wide / np.where(length == 0, 1, length)[:, None]


def whole_steps(vectors: np.ndarray) -> Tensor:
    """(n, D) float64, unit vectors in whole steps of 1 / STEPS: their products add up exactly."""
    return torch.from_numpy(np.rint(unit(vectors) * STEPS))


def _cosines(dot: Tensor) -> Tensor:
    """float32 cosines of products of ``whole_steps``."""
    return (dot / STEPS**2).float().clamp_(-1, 1)


def _exclude(keys: Tensor, own_Q: Tensor) -> None:
    """Empty each query's own column, where it is in this block."""
    queries = torch.nonzero((own_Q >= 0) & (own_Q < keys.shape[1])).squeeze(1)
    keys[queries, own_Q[queries]] = NOTHING


def _merge(best_QK: Tensor, keys: Tensor) -> Tensor:
    """The largest keys of both, descending, as many as ``best_QK`` has."""
    count = best_QK.shape[1]
    nearest = keys.topk(min(count, keys.shape[1])).values
    return torch.cat([best_QK, nearest], dim=1).topk(count).values


def _found(keys: Tensor) -> NeighbourHits:
    """What descending keys stand for."""
    cosines, rows = unpack(keys)
    return NeighbourHits(rows.numpy(), cosines.numpy())
