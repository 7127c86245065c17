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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchrec_mm.columns.jagged import Jagged, offsets_of, ragged_positions
from torchrec_mm.data.stream.folds import folds_of
from torchrec_mm.data.stream.search import SearchHits
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.distinct import distinct
from torchrec_mm.kernels.target_attention import RequestLists
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.make import Attended, attended_vectors, makes_in, unit_vectors

VALUES_AT_ONCE = 1 << 24  # of vectors that are being projected


class FrozenMake:
    """Makes ``RequestBatch.made``: the mean of what the MAKEs of all folds say."""

    def __init__(
        self, make: nn.Module, projected: VectorSource, further: Sequence[int] = ()
    ) -> None:
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
        makes, asked = makes_in(self.make), Asked.of(hits, self.further)
        table, _ = self.projected.gather(asked.rows)
        of_fold = table.tensor_split(len(makes), dim=1)
        if self.by_fold and len(makes) > 1:
            folds = folds_of(requests, len(makes))
            parts = [asked.of_requests(np.flatnonzero(folds == k)) for k in range(len(makes))]
            made = torch.cat(
                [
                    features(make, rows, part, np.searchsorted(places, ends).tolist())
                    for make, rows, (part, places) in zip(makes, of_fold, parts, strict=True)
                ]
            )
            order = np.argsort(np.concatenate([places for _, places in parts]))
            made = made[torch.from_numpy(order)]
        else:
            of_each = [
                features(make, rows, asked, ends) for make, rows in zip(makes, of_fold, strict=True)
            ]
            made = torch.stack(of_each).mean(dim=0)
        return [made[begin:end] for begin, end in pairwise(ends)]


class Past(NamedTuple):
    """One behaviour sequence: places in ``Asked.rows``, and the cosine of each pair."""

    behaviours: Jagged
    cosine: Tensor


class Asked(NamedTuple):
    """What MAKE is asked of some requests.

    rows: (n,) int, the distinct rows of vectors that occur. candidates: of each request, int32
    places in them. known: of each candidate, whether it has a vector. sequences: behaviours, and
    the further ones that MAKE looks at.
    """

    rows: np.ndarray
    candidates: Jagged
    known: np.ndarray
    sequences: tuple[Past, ...]

    @classmethod
    def of(cls, hits: SearchHits, further: Sequence[int]) -> "Asked":
        """``further``: which of the hits' further sequences MAKE looks at."""
        searched = [Past(hits.behaviour_rows, hits.cosine)]
        for of_rows, _, cosine in (hits.further[place] for place in further):
            searched.append(Past(of_rows, cosine))
        lists = [hits.candidate_rows, *(past.behaviours for past in searched)]
        together = np.concatenate([of.values for of in lists])
        rows, places = distinct(torch.from_numpy(together))
        parts = np.split(places.numpy(), np.cumsum([len(of.values) for of in lists])[:-1])
        candidates, *others = (Jagged(p, of.offsets) for p, of in zip(parts, lists, strict=True))
        return cls(
            rows.numpy(),
            candidates,
            hits.candidate_rows.values >= 0,
            tuple(Past(of, past.cosine) for of, past in zip(others, searched, strict=True)),
        )

    def of_requests(self, chosen: np.ndarray) -> "tuple[Asked, np.ndarray]":
        """These requests alone, and which impressions theirs are; ``chosen``: ascending."""
        candidates, places = self.candidates.take(chosen)
        sequences = []
        for behaviours, cosine in self.sequences:
            pairs = self.candidates.lengths * behaviours.lengths
            at_pairs = ragged_positions(offsets_of(pairs)[chosen], pairs[chosen])
            taken, _ = behaviours.take(chosen)
            sequences.append(Past(taken, cosine[torch.from_numpy(at_pairs)]))
        return Asked(self.rows, candidates, self.known[places], tuple(sequences)), places


def features(make: Make, table: Tensor, asked: Asked, ends: Sequence[int]) -> Tensor:
    """(I, M + hidden + 1) of one MAKE; ``table``: (n, M), its projections of ``asked.rows``."""
    candidates = asked.candidates
    sequences = []
    for behaviours, cosine in asked.sequences:
        lists = RequestLists(
            torch.from_numpy(candidates.offsets),
            torch.from_numpy(behaviours.offsets),
            int(candidates.lengths.max(initial=0)),
            int(behaviours.lengths.max(initial=0)),
        )
        sequences.append(Attended(torch.from_numpy(behaviours.values), lists, cosine))
    at_candidates = torch.from_numpy(candidates.values)
    targets, pooled = attended_vectors(make, table, at_candidates, sequences)
    known = torch.from_numpy(asked.known)
    # A product of matrices may be rounded differently with more rows: each batch has its own.
    parts = [slice(begin, end) for begin, end in pairwise(ends)]
    made = [make.judge(targets[part], pooled[part], known[part]) for part in parts]
    return torch.cat([torch.cat([x.interest, *x.hidden, x.logit[:, None]], dim=1) for x in made])


@torch.no_grad()
def project_vectors(make: nn.Module, vectors: ItemVectors, path: Path) -> None:
    """Write the (N, K * M) float32 projections of all vectors, an ``.npy`` file, block by block."""
    makes = makes_in(copy.deepcopy(make).cpu().eval())
    shape = (len(vectors), sum(each.projection.out_features for each in makes))
    values = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    at_once = max(1, VALUES_AT_ONCE // vectors.width)
    for start in range(0, len(vectors), at_once):
        block = torch.from_numpy(np.array(vectors.values[start : start + at_once]))
        projected = [each.project(unit_vectors(block)) for each in makes]
        values[start : start + len(block)] = torch.cat(projected, dim=1).numpy()
    values.flush()


def open_projected(vectors: ItemVectors, path: Path) -> ItemVectors:
    """The same items with what ``project_vectors`` wrote in the place of their vectors."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    meta = replace(vectors.meta, width=values.shape[1], dtype="float32")
    return ItemVectors(vectors.folder, vectors.item_ids, values, meta)
