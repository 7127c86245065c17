"""MAKE once it is frozen: what it says of a batch, worked out where batches are made.

Nothing of it learns any more, so none of it has to wait for a step: item vectors are projected
once a run, and the features come with the batch.

Shape letters: N items with a vector, R requests, I impressions, D item-vector width, M width of the
projection, K folds.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from torchrec_mm.data.stream.folds import folds_of
from torchrec_mm.data.stream.search import SearchHits
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.distinct import distinct_array
from torchrec_mm.kernels.target_attention import RequestLists
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.make import Attended, attended_vectors, makes_in, unit_vectors

VALUES_AT_ONCE = 1 << 24  # of vectors that are being projected


class Projected(Protocol):
    """Where projections are had: a ``VectorSource`` of them, or ``ProjectedOnDemand``."""

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]: ...


class FrozenMake:
    """Makes ``RequestBatch.made``: the mean of what the MAKEs of all folds say."""

    def __init__(self, make: nn.Module, projected: Projected, further: Sequence[int] = ()) -> None:
        """Copy ``make`` as it is now.

        ``projected``: ``project_vectors`` of the same weights. ``further``: which of a request's
        further sequences MAKE looks at.
        """
        self.make = copy.deepcopy(make).cpu().eval().requires_grad_(False)
        self.projected = projected
        self.further = tuple(further)
        self.by_fold = False

    def of_training(self) -> "FrozenMake":
        """The same, for the requests that it learned from: by the MAKE that did not see them."""
        of_training = copy.copy(self)
        of_training.by_fold = True
        return of_training

    @torch.no_grad()
    def __call__(self, hits: SearchHits, ends: Sequence[int], requests: np.ndarray) -> list[Tensor]:
        """Interest, hidden layers and logit of each impression, batch by batch.

        Args:
            hits: of a search among behaviours that have a vector, with the cosine of every pair.
            ends: n + 1 impressions, where batches begin and the last one ends.
            requests: (R,) int64, their numbers in the data set.

        Returns:
            n of (I, M + hidden + 1) float32, whatever else was searched at once the same bits.
        """
        makes, further = makes_in(self.make), [hits.further[place] for place in self.further]
        rows, hits = by_place(replace(hits, further=tuple(further)))
        table, _ = self.projected.gather(rows)
        of_fold, is_known = table.tensor_split(len(makes), dim=1), torch.from_numpy(rows >= 0)
        if self.by_fold and len(makes) > 1:
            folds = folds_of(requests, len(makes))
            parts = [hits.of_requests(np.flatnonzero(folds == k)) for k in range(len(makes))]
            made = torch.cat(
                [
                    features(make, of_rows, is_known, part, np.searchsorted(places, ends).tolist())
                    for make, of_rows, (part, places) in zip(makes, of_fold, parts, strict=True)
                ]
            )
            order = np.argsort(np.concatenate([places for _, places in parts]))
            made = made[torch.from_numpy(order)]
        else:
            of_each = [
                features(make, of_rows, is_known, hits, ends)
                for make, of_rows in zip(makes, of_fold, strict=True)
            ]
            made = torch.stack(of_each).mean(dim=0)
        return [made[begin:end] for begin, end in pairwise(ends)]


def by_place(hits: SearchHits) -> tuple[np.ndarray, SearchHits]:
    """(n,) int32, the distinct rows of vectors, and hits that say places in them, int32."""
    lists = [hits.candidate_rows, hits.behaviour_rows, *(of_rows for of_rows, *_ in hits.further)]
    rows, places = distinct_array(np.concatenate([of.values for of in lists]))
    parts = np.split(places, np.cumsum([len(of.values) for of in lists])[:-1])
    candidates, behaviours, *further = (
        replace(of, values=part) for of, part in zip(lists, parts, strict=True)
    )
    placed = tuple((of, *found[1:]) for of, found in zip(further, hits.further, strict=True))
    hits = replace(hits, candidate_rows=candidates, behaviour_rows=behaviours, further=placed)
    return rows, hits


def features(
    make: Make, table: Tensor, is_known: Tensor, hits: SearchHits, ends: Sequence[int]
) -> Tensor:
    """What one MAKE says.

    Args:
        table: (n, M) its projections. is_known: (n,) bool, whether there was a vector.
        hits: ``by_place``. ends: impressions where batches begin and end.

    Returns:
        (I, M + hidden + 1).
    """
    candidates = torch.from_numpy(hits.candidate_rows.values)
    sequences = [(hits.behaviour_rows, hits.cosine)]
    sequences += [(of_rows, cosine) for of_rows, _, cosine in hits.further]
    targets, pooled = attended_vectors(
        make,
        table,
        candidates,
        [
            Attended(torch.from_numpy(of_rows.values), lists_of(hits, of_rows.offsets), cosine)
            for of_rows, cosine in sequences
        ],
    )
    known = is_known[candidates]
    # A product of matrices may be rounded differently with more rows: each batch has its own.
    parts = [slice(begin, end) for begin, end in pairwise(ends)]
    made = [make.judge(targets[part], pooled[part], known[part]) for part in parts]
    return torch.cat([torch.cat([x.interest, *x.hidden, x.logit[:, None]], dim=1) for x in made])


def lists_of(hits: SearchHits, offsets: np.ndarray) -> RequestLists:
    """Whose the candidates are, and the behaviours of a sequence with these offsets."""
    candidates = hits.candidate_rows
    return RequestLists(
        torch.from_numpy(candidates.offsets),
        torch.from_numpy(offsets),
        int(candidates.lengths.max(initial=0)),
        int(np.diff(offsets).max(initial=0)),
    )


class ProjectedOnDemand:
    """``project_vectors`` of the vectors that are asked for: of some now, of new ones later."""

    def __init__(self, make: nn.Module, vectors: VectorSource) -> None:
        """Copy ``make`` as it is now."""
        self.makes = makes_in(copy.deepcopy(make).cpu().eval())
        self.vectors = vectors

    @torch.no_grad()
    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(n,) rows in [-1, N) to (n, K * M) float32, zeros for -1, and (n,) mask."""
        values, mask = self.vectors.gather(rows)
        return projections(self.makes, values) * mask[:, None], mask


@torch.no_grad()
def project_vectors(make: nn.Module, vectors: ItemVectors, path: Path) -> None:
    """Write the (N, K * M) float32 projections of all vectors, an ``.npy`` file, block by block."""
    makes = makes_in(copy.deepcopy(make).cpu().eval())
    shape = (len(vectors), sum(each.projection.out_features for each in makes))
    values = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    at_once = max(1, VALUES_AT_ONCE // vectors.width)
    for start in range(0, len(vectors), at_once):
        block = torch.from_numpy(np.array(vectors.values[start : start + at_once]))
        values[start : start + len(block)] = projections(makes, block).numpy()
    values.flush()


def projections(makes: Sequence[Make], vectors: Tensor) -> Tensor:
    """(n, K * M) float32 of (n, D) vectors as they are stored."""
    unit = unit_vectors(vectors)
    return torch.cat([make.project(unit) for make in makes], dim=1)


def open_projected(vectors: ItemVectors, path: Path) -> ItemVectors:
    """The same items with what ``project_vectors`` wrote in the place of their vectors."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    meta = replace(vectors.meta, width=values.shape[1], dtype="float32")
    return vectors.with_values(values, meta)
