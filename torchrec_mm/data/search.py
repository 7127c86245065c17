"""The general search of a batch's requests, in the data path: frozen vectors, all behaviours."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.jagged import Jagged
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.general_search import general_search


@dataclass(frozen=True)
class Found:
    """Results by impression. request: (I,) int32. kept_items: (I, K) int32 item numbers.

    kept_length: (I,) int32, how many of the K are real; the others repeat the candidate.
    kept_cosine: (I, K) float32. tiers: (I, N) float32.
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
        self, vectors: ItemVectors, vector_rows: np.ndarray, kept: int, num_tiers: int
    ) -> None:
        """``vector_rows``: (U,) int, row of each item's vector, -1 without."""
        self.matrix = torch.from_numpy(np.asarray(vectors.values))
        self.vector_rows = vector_rows.astype(np.int32, copy=False)
        self.kept, self.num_tiers = kept, num_tiers

    def __call__(self, candidates: Jagged, behaviours: Jagged) -> Found:
        """Search each request's behaviours for each of its candidates."""
        kept, number, cosine, tiers = general_search(
            self.matrix,
            torch.from_numpy(self.vector_rows[candidates.values]),
            torch.from_numpy(self.vector_rows[behaviours.values]),
            torch.from_numpy(candidates.offsets),
            torch.from_numpy(behaviours.offsets),
            self.kept,
            self.num_tiers,
        )
        request = candidates.owners()
        is_real = np.arange(self.kept) < number.numpy()[:, None]
        positions = behaviours.offsets[request][:, None] + kept.numpy()
        items = np.where(
            is_real,
            behaviours.values[np.where(is_real, positions, 0)]
            if len(behaviours.values)
            else np.int32(0),
            candidates.values[:, None],
        )
        return Found(request.astype(np.int32), items, number, cosine, tiers)
