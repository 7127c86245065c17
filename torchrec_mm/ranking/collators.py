"""What each ranker wants in its batches."""

from dataclasses import replace

import numpy as np

from torchrec_mm.data.encoded.encoded import EncodedItems
from torchrec_mm.data.stream.collate import Collator, SlotVectors
from torchrec_mm.data.stream.search import GeneralSearch
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.ranking.spec import RankerSpec


def collator_for_ranker(
    spec: RankerSpec, items: EncodedItems, vectors: VectorSource | None, max_behaviours: int
) -> Collator:
    """Tables for all; vectors of the slots, or for muse what the search finds with them."""
    raw_ids = tuple(spec.zero_collision)
    collator = Collator(items, True, tuple(spec.tables.behaviour), max_behaviours, raw_ids)
    if vectors is None:
        return collator
    rows = rows_of_vectors(items, vectors)
    if spec.method == "muse":
        search = GeneralSearch(vectors.fetch, rows, kept=spec.kept, num_tiers=spec.num_tiers)
        return replace(collator, search=search)
    return replace(collator, vectors=SlotVectors(vectors.gather, rows))


def attended_behaviours(spec: RankerSpec, max_behaviours: int) -> int:
    """The most behaviours that a candidate is compared with one by one: newest, and kept ones."""
    return max_behaviours + (spec.kept if spec.method == "muse" else 0)


def collator_for_make(items: EncodedItems, vectors: VectorSource, max_behaviours: int) -> Collator:
    """Vectors and nothing else."""
    slot_vectors = SlotVectors(vectors.gather, rows_of_vectors(items, vectors))
    return Collator(items, False, (), max_behaviours, vectors=slot_vectors)


def rows_of_vectors(items: EncodedItems, vectors: ItemVectors | VectorSource) -> np.ndarray:
    """(U,) int32: row of each item's vector, -1 where it has none."""
    return vectors.rows(items.item_ids).astype(np.int32)
