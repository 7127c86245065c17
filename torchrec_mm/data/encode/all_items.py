"""All items of an encoded data set, and what is known of each."""

from pathlib import Path

import numpy as np

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.id_set import union
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.encode.count import DistinctIds
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encoded.vocabulary import UNSEEN, Vocabularies
from torchrec_mm.item_vectors.writer import new_array


class AllItems:
    """U items: those of the catalogue, of candidates and of behaviours.

    item_ids: (U,) int64, strictly ascending. disagreements: by attribute of
    ``source.attributes_of_behaviours``, how many behaviours had another value than the one kept.
    """

    def __init__(self, distinct: DistinctIds, source: RequestSource) -> None:
        """Gather the items; ``learn_attribute`` adds what only behaviours know of them."""
        self.item_ids = union(distinct.item_ids, source.items.item_ids)
        self._index = HashIndex(self.item_ids)
        self._catalogue = source.items
        self._missing = source.missing
        learned = source.attributes_of_behaviours
        self._learned = {name: self._from_catalogue(name) for name in learned}
        self.disagreements = dict.fromkeys(learned, 0)

    def __len__(self) -> int:
        return len(self.item_ids)

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """(n,) int32 rows of items, by their ids (n,) int64; each must be one of the U."""
        return self._index.rows(item_ids)

    def attribute(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(U,) int64 values, and (U,) bool where there is one."""
        return self._learned[name] if name in self._learned else self._from_catalogue(name)

    def learn_attribute(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Keep the first value of items without one, and count what others contradict it.

        Args:
            name: one of ``source.attributes_of_behaviours``.
            rows: (n,) int32 items. values: (n,) int64, not missing, of each.
        """
        kept, known = self._learned[name]
        new = np.flatnonzero(~known[rows])[::-1]  # backwards, so that the first is written last
        kept[rows[new]] = values[new]
        known[rows[new]] = True
        self.disagreements[name] += int(np.count_nonzero(kept[rows] != values))

    def save(self, folder: Path, vocabularies: Vocabularies) -> None:
        """Write ``items/`` of an encoded data set, one feature in memory at a time."""
        folder.mkdir(parents=True)
        np.save(folder / "item_ids.npy", self.item_ids)
        shape = len(vocabularies.item), len(self)
        rows = new_array(folder / "rows.npy", shape, np.dtype(np.int32))
        for row, name in zip(rows, vocabularies.item, strict=True):
            row[:] = self.table_rows(name, vocabularies)
        rows.flush()
        if self._catalogue.created_at is not None:
            at = self._catalogue.index.rows(self.item_ids)
            unknown = ItemCatalogue.UNKNOWN_TIME
            created_at = np.where(at >= 0, self._catalogue.created_at[at], unknown)
            np.save(folder / "created_at.npy", created_at)

    def table_rows(self, name: str, vocabularies: Vocabularies) -> np.ndarray:
        """(U,) table rows of all items in one item feature."""
        vocabulary = vocabularies.item[name]
        if name == "item_id":
            return vocabulary.rows(self.item_ids)
        values, known = self.attribute(name)
        return np.where(known, vocabulary.rows(values), UNSEEN)

    def _from_catalogue(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values = self._catalogue.attributes[name]
        if self._missing is not None:
            kept = np.flatnonzero(values != self._missing)
        else:
            kept = np.arange(len(values))
        rows = self._index.rows(self._catalogue.item_ids[kept])
        all_values, known = np.zeros(len(self), np.int64), np.zeros(len(self), bool)
        all_values[rows] = values[kept]
        known[rows] = True
        return all_values, known
