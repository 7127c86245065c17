"""What item vectors say of the requests of several batches: to compare them at once is faster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.data.encoded.arrays import RequestArrays
from torchrec_mm.data.stream.batches import FurtherBehaviours
from torchrec_mm.data.stream.search import GeneralSearch, SearchHits

MakeOfHits = Callable[[SearchHits, Sequence[int], np.ndarray], list[Tensor]]


class FurtherHits(NamedTuple):
    """``SearchHits.tiers`` and ``cosine`` of a further sequence; None where not asked for."""

    tiers: Tensor | None
    cosine: Tensor | None


class Compared(NamedTuple):
    """What the vectors say of the requests of a batch: ``SearchHits``, and ``made`` of them.

    further: of each further sequence; none where they are not searched.
    """

    kept_items: np.ndarray
    kept_length: Tensor
    kept_cosine: Tensor
    tiers: Tensor
    cosine: Tensor
    made: Tensor | None
    further: tuple[FurtherHits, ...]


@dataclass(frozen=True)
class Comparison:
    """Searches all that a batch is to know of its vectors; the fields are a ``Collator``'s."""

    search: GeneralSearch
    vector_rows: np.ndarray
    max_behaviours: int
    make: MakeOfHits | None
    sequences: tuple[str, ...]

    def __call__(self, shares: Sequence[RequestArrays]) -> list[Compared]:
        """``shares``: each with the candidates that its batch is to have."""
        search = self.search
        candidates = Jagged.concatenate([share.candidates for share in shares])
        behaviours = self._searched([share.behaviours for share in shares])
        further = [
            self._searched([share.sequences[event] for share in shares])
            for event in (self.sequences if search.searches_further else ())
        ]
        hits = search(candidates, behaviours, further)
        ends = offsets_of(np.array([len(share) for share in shares]))
        impressions = candidates.offsets[ends].tolist()
        pairs = _pairs(candidates, behaviours, ends, search.pairs)
        made: Sequence[Tensor | None] = [None] * len(shares)
        if self.make is not None:
            made = self.make(hits, impressions, np.concatenate([share.rows for share in shares]))
        of_further = self._further(candidates, further, hits, ends)
        return [
            Compared(
                hits.kept_items[begin:end],
                hits.kept_length[begin:end],
                hits.kept_cosine[begin:end],
                hits.tiers[begin:end],
                hits.cosine[places],
                made_of_batch,
                further_of_batch,
            )
            for (begin, end), places, made_of_batch, further_of_batch in zip(
                pairwise(impressions), pairs, made, of_further, strict=True
            )
        ]

    def _searched(self, lists: list[Jagged]) -> Jagged:
        """Behaviours of all requests, the newest of them, or what of these has a vector."""
        whole = Jagged.concatenate(lists)
        if self.search.scope == "all":
            return whole
        newest, _ = whole.newest(self.max_behaviours)
        if self.search.scope == "newest":
            return newest
        return newest.where(self.vector_rows[newest.values] >= 0)

    def _further(
        self, candidates: Jagged, further: list[Jagged], hits: SearchHits, ends: np.ndarray
    ) -> list[tuple[FurtherHits, ...]]:
        """Of each batch; ``ends``: requests where batches begin and end."""
        search, impressions = self.search, candidates.offsets[ends].tolist()
        pairs = [_pairs(candidates, items, ends, search.further_pairs) for items in further]
        return [
            tuple(
                FurtherHits(
                    tiers[begin:end] if search.num_tiers else None,
                    # What MAKE has used is none of the network's business.
                    cosine[places[batch]] if search.further_pairs and not self.make else None,
                )
                for (_, tiers, cosine), places in zip(hits.further, pairs, strict=True)
            )
            for batch, (begin, end) in enumerate(pairwise(impressions))
        ]


def further_behaviours(
    further: Sequence[Jagged], slots: Sequence[np.ndarray], compared: Compared | None
) -> tuple[FurtherBehaviours, ...]:
    """What the network is to see of further sequences.

    ``further``: item numbers of each, of all requests. ``slots``: (T,) int32, where these are.
    """
    hits = compared.further if compared else ()
    return tuple(
        FurtherBehaviours(
            slots=torch.from_numpy(of_items),
            offsets=torch.from_numpy(items.offsets),
            most=int(items.lengths.max()),
            tiers=found.tiers,
            cosine=found.cosine,
        )
        for items, of_items, found in zip(
            further, slots, hits or [FurtherHits(None, None)] * len(further), strict=True
        )
    )


def _pairs(candidates: Jagged, behaviours: Jagged, ends: np.ndarray, asked: bool) -> list[slice]:
    """Where the pairs of each batch are; ``ends``: requests where batches begin and end."""
    offsets = offsets_of(candidates.lengths * behaviours.lengths * asked)[ends]
    return [slice(begin, end) for begin, end in pairwise(offsets.tolist())]
