"""MAKE once it is frozen: what it says of a batch, worked out where batches are made.

Nothing of it learns any more, so none of it has to wait for a step: item vectors are projected
once a run, and the features come with the batch.

Shape letters: N items with a vector, I impressions, D item-vector width, M width of the projection.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.stream.search import SearchHits
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.distinct import distinct
from torchrec_mm.kernels.target_attention import RequestLists
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.make import attended_vectors, unit_vectors

VALUES_AT_ONCE = 1 << 24  # of vectors that are being projected


class FrozenMake:
    """Makes ``RequestBatch.made``."""

    def __init__(self, make: Make, projected: VectorSource) -> None:
        """``make``: copied as it is now. ``projected``: ``project_vectors`` of the same weights."""
        self.make = copy.deepcopy(make).cpu().eval().requires_grad_(False)
        self.projected = projected

    @torch.no_grad()
    def __call__(self, hits: SearchHits, ends: Sequence[int]) -> list[Tensor]:
        """Interest, hidden layers and logit of each impression, batch by batch.

        Args:
            hits: of a search among behaviours that have a vector, with the cosine of every pair.
            ends: n + 1 impressions, where batches begin and the last one ends.

        Returns:
            n of (I, M + hidden + 1) float32, whatever else was searched at once the same bits.
        """
        candidates, behaviours = hits.candidate_rows, hits.behaviour_rows
        rows, places = distinct(
            torch.from_numpy(np.concatenate([candidates.values, behaviours.values]))
        )
        table, _ = self.projected.gather(rows.numpy())
        lists = RequestLists(
            torch.from_numpy(candidates.offsets),
            torch.from_numpy(behaviours.offsets),
            int(candidates.lengths.max()),
            int(behaviours.lengths.max()),
        )
        targets, pooled = attended_vectors(
            self.make,
            table,
            places[: len(candidates.values)],
            places[len(candidates.values) :],
            lists,
            hits.cosine,
        )
        known = torch.from_numpy(candidates.values >= 0)
        # A product of matrices may be rounded differently with more rows: each batch has its own.
        parts = [slice(begin, end) for begin, end in pairwise(ends)]
        made = [self.make.judge(targets[part], pooled[part], known[part]) for part in parts]
        return [torch.cat([x.interest, *x.hidden, x.logit[:, None]], dim=1) for x in made]


@torch.no_grad()
def project_vectors(make: Make, vectors: ItemVectors, path: Path) -> None:
    """Write the (N, M) float32 projections of all vectors, an ``.npy`` file, block by block."""
    shape = (len(vectors), make.projection.out_features)
    values = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    at_once = max(1, VALUES_AT_ONCE // vectors.width)
    make = copy.deepcopy(make).cpu().eval()
    for start in range(0, len(vectors), at_once):
        block = torch.from_numpy(np.array(vectors.values[start : start + at_once]))
        values[start : start + len(block)] = make.project(unit_vectors(block)).numpy()
    values.flush()


def open_projected(vectors: ItemVectors, path: Path) -> ItemVectors:
    """The same items with what ``project_vectors`` wrote in the place of their vectors."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    meta = replace(vectors.meta, width=values.shape[1], dtype="float32")
    return ItemVectors(vectors.folder, vectors.item_ids, values, meta)
