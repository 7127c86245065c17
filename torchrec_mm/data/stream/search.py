"""The general search of a batch's requests, in the data path: frozen vectors, all behaviours."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.stream.vector_source import Fetched
from torchrec_mm.kernels.general_search import general_search


@dataclass(frozen=True)
class SearchHits:
    """What a search found for each impression, by item number.

    request: (I,) int32. kept_items: (I, K) int32. kept_length: (I,) int32, how many of the K are
    real; the others repeat the candidate. kept_cosine: (I, K) float32. tiers: (I, N) float32.
    """

    request: np.ndarray
    kept_items: np.ndarray
    kept_length: Tensor
    kept_cosine: Tensor
    tiers: Tensor


class GeneralSearch:
    """Keeps the K behaviours most alike each candidate, and counts all of them by tier.

    Source: MUSE, arXiv:2512.07216, general search unit. Ours: SimTier over every similarity.
    """

    def __init__(
        self,
        fetch: Callable[[np.ndarray, np.ndarray], Fetched],
        vector_rows: np.ndarray,
        *,
        kept: int,
        num_tiers: int,
    ) -> None:
        """``fetch``: a ``VectorSource``'s. ``vector_rows``: (U,) int, of each item, -1 without."""
        self.fetch = fetch
        self.vector_rows = vector_rows.astype(np.int32, copy=False)
        self.kept, self.num_tiers = kept, num_tiers

    def __call__(self, candidates: Jagged, behaviours: Jagged) -> SearchHits:
        """Search each request's behaviours for each of its candidates."""
        matrix, candidate_rows, behaviour_rows = self.fetch(
            self.vector_rows[candidates.values], self.vector_rows[behaviours.values]
        )
        kept, num_kept, cosine, tiers = general_search(
            matrix,
            torch.from_numpy(candidate_rows),
            torch.from_numpy(behaviour_rows),
            torch.from_numpy(candidates.offsets),
            torch.from_numpy(behaviours.offsets),
            keep=self.kept,
            num_tiers=self.num_tiers,
        )
        request = candidates.owners()
        is_real = np.arange(self.kept) < num_kept.numpy()[:, None]
        positions = behaviours.offsets[request][:, None] + kept.numpy()
        items = np.repeat(candidates.values[:, None], self.kept, axis=1)
        items[is_real] = behaviours.values[positions[is_real]]
        return SearchHits(request.astype(np.int32), items, num_kept, cosine, tiers)
