"""All items of an encoded data set, and the table row of each in each item feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchrec_mm.data.encode_census import Census
from torchrec_mm.data.items import ItemCatalogue
from torchrec_mm.data.vocabulary import UNSEEN, Vocabulary


@dataclass(frozen=True)
class Universe:
    """U items: those of the catalogue, of candidates and of behaviours.

    item_ids: (U,) int64, strictly ascending. created_at: (U,) int64 as in ``ItemCatalogue``, or
    None. attributes: (U,) int64 values by name. known: (U,) bool by name, where there is a value.
    """

    item_ids: np.ndarray
    created_at: np.ndarray | None
    attributes: Mapping[str, np.ndarray]
    known: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, census: Census, items: ItemCatalogue, missing: int | None) -> "Universe":
        """The catalogue's word on an attribute goes before what behaviours told.

        Args:
            census: the ids in the requests.
            items: the catalogue.
            missing: the value that stands for "not known" in the catalogue.
        """
        item_ids = _union(census.item_ids, items.item_ids)
        in_catalogue = items.index.rows(item_ids)
        attributes, known = {}, {}
        for name, values in items.attributes.items():
            attributes[name] = np.where(in_catalogue >= 0, values[in_catalogue], 0)
            known[name] = in_catalogue >= 0
            if missing is not None:
                known[name] &= attributes[name] != missing
        for name, (told_ids, values) in census.told.items():
            rows = np.searchsorted(item_ids, told_ids)
            rows, values = rows[~known[name][rows]], values[~known[name][rows]]
            attributes[name][rows] = values
            known[name][rows] = True
        created_at = items.created_at
        if created_at is not None:
            unknown = ItemCatalogue.UNKNOWN_TIME
            created_at = np.where(in_catalogue >= 0, created_at[in_catalogue], unknown)
        return cls(item_ids, created_at, attributes, known)

    def shown_values(self, name: str, census: Census) -> np.ndarray:
        """Values of an attribute that items shown in training have; int64, ascending."""
        shown = np.zeros(len(self.item_ids), dtype=bool)
        shown[np.searchsorted(self.item_ids, census.item_ids[census.shown > 0])] = True
        return np.unique(self.attributes[name][shown & self.known[name]])

    def table_rows(self, vocabularies: Mapping[str, Vocabulary]) -> np.ndarray:
        """(F, U) int32: the table row of each item in each feature, in order of the mapping."""
        rows = np.zeros((len(vocabularies), len(self.item_ids)), dtype=np.int32)
        for row, (name, vocabulary) in zip(rows, vocabularies.items(), strict=True):
            if name == "item_id":
                row[:] = vocabulary.rows(self.item_ids)
            else:
                found = vocabulary.rows(self.attributes[name])
                row[:] = np.where(self.known[name], found, UNSEEN)
        return rows

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """(n,) int32 rows of items that are all in the universe."""
        distinct, inverse = np.unique(item_ids, return_inverse=True)
        # Sorted look-ups walk a large array in order: several times faster than at random.
        return np.searchsorted(self.item_ids, distinct).astype(np.int32)[inverse]

    def save(self, folder: Path, table_rows: np.ndarray) -> None:
        """Write ``items/`` of an encoded data set."""
        folder.mkdir(parents=True)
        np.save(folder / "item_ids.npy", self.item_ids)
        np.save(folder / "rows.npy", table_rows)
        if self.created_at is not None:
            np.save(folder / "created_at.npy", self.created_at)


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distinct values of two ascending arrays, ascending; linear, unlike ``np.union1d``."""
    both = np.sort(np.concatenate([a, b]), kind="stable")
    return both[np.concatenate([[True], both[1:] != both[:-1]])[: len(both)]]
