"""The general search of a batch's requests, in the data path, with frozen vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.columns.jagged import Jagged, offsets_of, ragged_positions
from torchrec_mm.data.stream.vector_source import Fetched
from torchrec_mm.kernels.general_search import general_search

# all: every behaviour of a request. newest: those that target attention sees. known: of these, the
# ones that have a vector, so that a pair is one of two vectors wherever the candidate has one.
Scope = Literal["all", "newest", "known"]


@dataclass(frozen=True)
class SearchHits:
    """What a search found for each impression, by item number.

    candidate_rows: of I int32, row of each candidate's vector, -1 without one. behaviour_rows: the
    rows of what was searched. kept_items: (I, K) int32. kept_length: (I,) int32, how many of the K
    are real; the others repeat the candidate. kept_cosine: (I, K) float32. tiers: (I, N) float32.
    cosine: (P,) float32 of each pair, (0,) if not asked for; 0 where either has no vector.
    further: of each further sequence that was searched, its rows, ``tiers`` and ``cosine``.
    """

    candidate_rows: Jagged
    behaviour_rows: Jagged
    kept_items: np.ndarray
    kept_length: Tensor
    kept_cosine: Tensor
    tiers: Tensor
    cosine: Tensor
    further: tuple[tuple[Jagged, Tensor, Tensor], ...] = ()

    def of_requests(self, chosen: np.ndarray) -> "tuple[SearchHits, np.ndarray]":
        """What was found of these requests alone, and (I,) which impressions are theirs.

        ``chosen``: int64, ascending.
        """
        candidates, places = self.candidate_rows.take(chosen)
        at = torch.from_numpy(places)

        def of_list(rows: Jagged, cosine: Tensor) -> tuple[Jagged, Tensor]:
            pairs = self.candidate_rows.lengths * rows.lengths * (len(cosine) > 0)
            taken = ragged_positions(offsets_of(pairs)[chosen], pairs[chosen])
            return rows.take(chosen)[0], cosine[torch.from_numpy(taken)]

        behaviours, cosine = of_list(self.behaviour_rows, self.cosine)
        further = []
        for rows, tiers, pairs in self.further:
            taken, of_pairs = of_list(rows, pairs)
            further.append((taken, tiers[at], of_pairs))
        kept = self.kept_items[places], self.kept_length[at], self.kept_cosine[at]
        hits = SearchHits(candidates, behaviours, *kept, self.tiers[at], cosine, tuple(further))
        return hits, places


@dataclass(frozen=True, kw_only=True)
class GeneralSearch:
    """Compares each candidate with behaviours of its request, once a batch, for all who ask.

    fetch: a ``VectorSource``'s. vector_rows: (U,) int32 row of each item's vector, -1 without.
    scope: which behaviours are searched. kept: K, the most alike to keep, 0 for none. num_tiers: N
    to count all by, 0 for no counting. pairs: whether every cosine is wanted. Of further sequences,
    none are kept, and every cosine is wanted if ``further_pairs``.

    Source: MUSE, arXiv:2512.07216, general search unit. Ours: SimTier over every similarity.
    """

    fetch: Callable[[np.ndarray, np.ndarray], Fetched]
    vector_rows: np.ndarray
    scope: Scope
    kept: int = 0
    num_tiers: int = 0
    pairs: bool = False
    further_pairs: bool = False

    @property
    def searches_further(self) -> bool:
        """Whether anything is wanted of further sequences."""
        return self.num_tiers > 0 or self.further_pairs

    def __call__(
        self, candidates: Jagged, behaviours: Jagged, further: Sequence[Jagged] = ()
    ) -> SearchHits:
        """Search these behaviours of each request for each of its candidates; all of one fetch.

        ``further``: the sequences to search besides.
        """
        candidate_rows = self.vector_rows[candidates.values]
        behaviour_rows = self.vector_rows[behaviours.values]
        rows = [behaviour_rows, *(self.vector_rows[items.values] for items in further)]
        fetched = self.fetch(candidate_rows, np.concatenate(rows) if further else behaviour_rows)
        first, *rest = np.split(fetched.behaviour_rows, np.cumsum([len(of) for of in rows])[:-1])
        searched_in = partial(
            general_search, fetched.matrix, torch.from_numpy(fetched.candidate_rows)
        )
        asking = torch.from_numpy(candidates.offsets)
        kept, num_kept, cosine, tiers, pairs = searched_in(
            torch.from_numpy(first),
            asking,
            torch.from_numpy(behaviours.offsets),
            keep=self.kept,
            num_tiers=self.num_tiers,
            pairs=self.pairs,
        )
        of_further = [
            searched_in(
                torch.from_numpy(each),
                asking,
                torch.from_numpy(items.offsets),
                keep=0,
                num_tiers=self.num_tiers,
                pairs=self.further_pairs,
            )
            for each, items in zip(rest, further, strict=True)
        ]
        items = self._items(candidates, behaviours, kept.numpy(), num_kept.numpy())
        asked = Jagged(candidate_rows, candidates.offsets)
        searched = Jagged(behaviour_rows, behaviours.offsets)
        besides = tuple(
            (Jagged(of, items.offsets), hits.tiers, hits.pairs)
            for of, items, hits in zip(rows[1:], further, of_further, strict=True)
        )
        return SearchHits(asked, searched, items, num_kept, cosine, tiers, pairs, besides)

    def _items(
        self, candidates: Jagged, behaviours: Jagged, kept: np.ndarray, num_kept: np.ndarray
    ) -> np.ndarray:
        """(I, K) int32: the kept behaviours by item number."""
        items = np.repeat(candidates.values[:, None], self.kept, axis=1)
        if self.kept:
            is_real = np.arange(self.kept) < num_kept[:, None]
            positions = behaviours.offsets[candidates.owners()][:, None] + kept
            items[is_real] = behaviours.values[positions[is_real]]
        return items
