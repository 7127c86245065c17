"""Requests that never were, of rows and vectors that a ranker has: what a program is tried on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.ranking.spec import RankerSpec

ITEMS, WITHOUT_VECTOR = 48, 8
CANDIDATES = (5, 1, 7, 2)  # of each request
NONE_FOR = 1  # the request without a past


@dataclass(frozen=True)
class Drawing:
    """Draws requests with all that a ranker reads.

    vocabularies: of the ranker. most: the longest list of behaviours.
    """

    spec: RankerSpec
    vocabularies: Vocabularies
    most: int
    rng: np.random.Generator

    def items(self, vectors: ItemVectors | None) -> EncodedItems:
        """Some items, most of them with a vector where there are any."""
        known = np.empty(0, np.int64) if vectors is None else vectors.item_ids
        some = self.rng.permutation(known)[: ITEMS - WITHOUT_VECTOR]
        others = self.rng.integers(-(2**62), 2**62, ITEMS - len(some))
        tables, vocabularies = self.spec.tables.item, self.vocabularies
        features = tuple(name for name in vocabularies.item if name in tables)
        numbers = len(vocabularies.numbers_of("item"))
        return EncodedItems(
            features=features,
            item_ids=np.unique(np.concatenate([some, others])),
            rows=np.stack([self._rows(tables[name], ITEMS) for name in features]),
            created_at=None,
            numbers=self._numbers(ITEMS, numbers),
            bags={n: self._bags(tables[n], ITEMS) for n in vocabularies.item_bag if n in tables},
        )

    def requests(self) -> RequestArrays:
        """As many as CANDIDATES, of the items 0 to ITEMS."""
        spec, count = self.spec, len(CANDIDATES)
        candidates = self._items(np.array(CANDIDATES))
        behaviours = self._items(self._past())
        shown, past = len(candidates.values), len(behaviours.values)
        request, vocabularies = spec.tables.request, self.vocabularies
        return RequestArrays(
            rows=np.arange(count),
            user_ids=self.rng.integers(-(2**62), 2**62, count),
            timestamps=None,
            request_rows={n: self._rows(request[n], count) for n in vocabularies.request},
            candidates=candidates,
            labels=np.zeros(shown, np.int8),
            behaviours=behaviours,
            behaviour_rows=self._all(spec.tables.behaviour, past),
            impression_rows=self._all(spec.tables.impression, shown),
            request_numbers=self._numbers(count, len(spec.request_numbers)),
            impression_numbers=self._numbers(shown, len(vocabularies.numbers_of("impression"))),
            request_bags={n: self._bags(request[n], count) for n in vocabularies.request_bag},
            sequences={event: self._items(self._past()) for event in spec.sequences},
        )

    def _past(self) -> np.ndarray:
        lengths = self.rng.integers(1, self.most + 1, len(CANDIDATES))
        lengths[0], lengths[NONE_FOR] = self.most, 0
        return lengths

    def _items(self, lengths: np.ndarray) -> Jagged:
        values = self.rng.integers(0, ITEMS, lengths.sum()).astype(np.int32)
        return Jagged(values, offsets_of(lengths))

    def _all(self, tables: Mapping[str, int], count: int) -> dict[str, np.ndarray]:
        return {name: self._rows(rows, count) for name, rows in tables.items()}

    def _rows(self, rows: int, count: int) -> np.ndarray:
        return self.rng.integers(0, rows, count).astype(np.int32)

    def _bags(self, rows: int, count: int) -> Jagged:
        lengths = self.rng.integers(0, 4, count)
        return Jagged(self._rows(rows, lengths.sum()), offsets_of(lengths))

    def _numbers(self, count: int, columns: int) -> np.ndarray | None:
        """Normalised ones, every fourth or so null."""
        if not columns:
            return None
        values = self.rng.normal(size=(count, columns)).astype(np.float32)
        values[self.rng.random(values.shape) < 0.25] = np.nan
        return values
