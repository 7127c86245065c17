"""What each ranker wants in its batches."""

from dataclasses import replace

import numpy as np

from torchrec_mm.data.encoded.encoded import EncodedItems
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.search import GeneralSearch
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.ranking.frozen_make import FrozenMake
from torchrec_mm.ranking.spec import RankerSpec


def collator_for_ranker(
    spec: RankerSpec,
    items: EncodedItems,
    vectors: VectorSource | None,
    max_behaviours: int,
    make: FrozenMake | None = None,
) -> Collator:
    """Tables for all; of the vectors, what the method's parts ask for.

    ``items``: for method codes those of ``with_codes``. ``make``: for the methods that hold MAKE,
    and for no others.
    """
    raw_ids = tuple(spec.zero_collision)
    collator = Collator(
        items,
        True,
        tuple(spec.tables.behaviour),
        max_behaviours,
        raw_ids,
        shared_ids=spec.shared_ids,
        sequences=spec.sequences,
    )
    if vectors is None or spec.has("codes"):
        return collator
    rows = rows_of_vectors(items, vectors)
    collator = replace(collator, vector_rows=rows)
    if spec.effects:
        collator = replace(collator, gather_targets=vectors.gather)
    if spec.has("vector"):
        return replace(collator, gather=vectors.gather)
    search = GeneralSearch(
        fetch=vectors.fetch,
        vector_rows=rows,
        scope="all" if spec.has("muse") else "known" if spec.has("make") else "newest",
        kept=spec.kept if spec.has("muse") else 0,
        num_tiers=spec.num_tiers if spec.has("simtier") or spec.has("muse") else 0,
        pairs=spec.has("simscore") or spec.has("make"),
        further_pairs=spec.has("simscore") or bool(spec.make and spec.make.sequences),
    )
    return replace(collator, search=search, make=make)


def attended_behaviours(spec: RankerSpec, max_behaviours: int) -> int:
    """The most behaviours that a candidate is compared with one by one: newest, and kept ones.

    Of all sequences together.
    """
    newest = max_behaviours * (1 + len(spec.sequences))
    return newest + (spec.kept if spec.method == "muse" else 0)


def collator_for_make(
    items: EncodedItems,
    vectors: VectorSource,
    max_behaviours: int,
    folds: int = 1,
    sequences: tuple[str, ...] = (),
) -> Collator:
    """Vectors, their cosines, and nothing else.

    ``folds``: more than 1 to learn without each. ``sequences``: of ``MakeSpec``.
    """
    rows = rows_of_vectors(items, vectors)
    search = GeneralSearch(
        fetch=vectors.fetch,
        vector_rows=rows,
        scope="known",
        pairs=True,
        further_pairs=bool(sequences),
    )
    return Collator(
        items,
        False,
        (),
        max_behaviours,
        vector_rows=rows,
        gather=vectors.gather,
        search=search,
        sequences=sequences,
        folds=folds,
    )


def with_codes(items: EncodedItems, vectors: ItemVectors, codebooks: Codebooks) -> EncodedItems:
    """The same items with their semantic codes as further features."""
    rows = np.concatenate([items.rows, codebooks.rows(vectors, items.item_ids)])
    return replace(items, features=(*items.features, *codebooks.tables), rows=rows)


def rows_of_vectors(items: EncodedItems, vectors: ItemVectors | VectorSource) -> np.ndarray:
    """(U,) int32: row of each item's vector, -1 where it has none."""
    return vectors.rows(items.item_ids).astype(np.int32)
