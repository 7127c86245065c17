"""All items of an encoded data set, and what is known of each."""

from pathlib import Path

import numpy as np

from torchrec_mm.columns.npy_files import new_array
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.encode.count import grown
from torchrec_mm.data.encode.number import Numbering
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encoded.encoded import NUMBERS
from torchrec_mm.data.encoded.vocabulary import UNSEEN, Vocabularies


class AllItems:
    """U items: those of the catalogue, of candidates and of behaviours.

    item_ids: (U,) int64, strictly ascending. rows: (U,) int32, of the items by their number, the
    place among the ascending ids. counts: by split, by row.
    """

    def __init__(self, numbering: Numbering, source: RequestSource) -> None:
        """Put everything that is known by number in the order of the ids."""
        order = np.argsort(numbering.items.ids)
        self.item_ids = numbering.items.ids[order]
        self.rows = np.empty(len(order), np.int32)
        self.rows[order] = np.arange(len(order), dtype=np.int32)
        self.counts = {name: split.counts for name, split in numbering.splits.items()}
        for counts in self.counts.values():
            counts.reorder(order)
        self._catalogue = source.items
        self._missing = source.missing
        self._learned = {
            name: (
                grown(learned.values, len(order))[order],
                grown(learned.known, len(order))[order],
            )
            for name, learned in numbering.attributes.items()
        }

    def __len__(self) -> int:
        return len(self.item_ids)

    def of_catalogue(self, split: str) -> np.ndarray:
        """(N,) int64, how often a split shows each item of the catalogue."""
        counts = self.counts[split]
        return (counts.candidates + counts.behaviours)[self._catalogue_rows]

    def attribute(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(U,) int64 values, and (U,) bool where there is one."""
        return self._learned[name] if name in self._learned else self._from_catalogue(name)

    def numbers(self, name: str) -> np.ndarray:
        """(U,) float64 of a numeric attribute, NaN where it is null or the item is unknown."""
        values = np.full(len(self), np.nan)
        values[self._catalogue_rows] = self._catalogue.numbers[name]
        return values

    def save(self, folder: Path, vocabularies: Vocabularies) -> None:
        """Write ``items/`` of an encoded data set, one feature in memory at a time."""
        folder.mkdir(parents=True)
        np.save(folder / "item_ids.npy", self.item_ids)
        shape = len(vocabularies.item), len(self)
        rows = new_array(folder / "rows.npy", shape, np.dtype(np.int32))
        for row, name in zip(rows, vocabularies.item, strict=True):
            row[:] = self.table_rows(name, vocabularies)
        rows.flush()
        if normalisers := vocabularies.numbers_of("item"):
            shape = len(self), len(normalisers)
            numbers = new_array(folder / NUMBERS, shape, np.dtype(np.float32))
            for place, (name, normaliser) in enumerate(normalisers.items()):
                numbers[:, place] = normaliser(self.numbers(name))
            numbers.flush()
        if self._catalogue.created_at is not None:
            created_at = np.full(len(self), ItemCatalogue.UNKNOWN_TIME)
            created_at[self._catalogue_rows] = self._catalogue.created_at
            np.save(folder / "created_at.npy", created_at)

    def table_rows(self, name: str, vocabularies: Vocabularies) -> np.ndarray:
        """(U,) table rows of all items in one item feature."""
        vocabulary = vocabularies.item[name]
        if name == "item_id":
            return vocabulary.rows(self.item_ids)
        values, known = self.attribute(name)
        return np.where(known, vocabulary.rows(values), UNSEEN)

    @property
    def _catalogue_rows(self) -> np.ndarray:
        """(N,) int32 rows of the catalogue's items, which were numbered first."""
        return self.rows[: len(self._catalogue)]

    def _from_catalogue(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values, rows = self._catalogue.attributes[name], self._catalogue_rows
        if self._missing is not None:
            kept = np.flatnonzero(values != self._missing)
            values, rows = values[kept], rows[kept]
        all_values, known = np.zeros(len(self), np.int64), np.zeros(len(self), bool)
        all_values[rows] = values
        known[rows] = True
        return all_values, known
