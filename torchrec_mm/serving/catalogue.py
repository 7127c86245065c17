"""What a ranker knows of items, in memory, for requests that arrive one by one.

Shape letters: N items of the catalogue, n items of a batch, F item tables, G numeric attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.contract.features import Bag
from torchrec_mm.data.contract.items import read_bags, read_catalogue
from torchrec_mm.data.encode.mapping import TableRows
from torchrec_mm.data.encode.source import known_items
from torchrec_mm.data.encoded.arrays import EncodedItems
from torchrec_mm.data.encoded.vocabulary import UNSEEN, Vocabularies
from torchrec_mm.data.stream.batches import ITEM_ID
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class Catalogue:
    """All items of a catalogue as an encoded data set has them, and after them one unknown item.

    index: where each id is. features: F names. rows: (F, N + 1) int32. numbers: (N + 1, G) float32,
    NaN for null, or None. bags: N + 1 lists of int32 table rows by name. row_of_id: of any item.
    """

    index: HashIndex
    features: tuple[str, ...]
    rows: np.ndarray
    numbers: np.ndarray | None
    bags: Mapping[str, Jagged]
    row_of_id: TableRows

    @classmethod
    def open(cls, items: Path, vocabularies: Vocabularies) -> "Catalogue":
        """Read a folder in the layout of ``items/``.

        Raises:
            InputError: a column is missing that the ranker was trained with; see
                ``read_catalogue``.
        """
        known = known_items(vocabularies)
        catalogue = read_catalogue(items, known)
        if missing := [name for name in known if name not in catalogue.columns]:
            rule = f"{items} must have the column {missing[0]} that the ranker was trained with"
            raise InputError(rule)
        count = len(catalogue)
        row_of = {name: TableRows(each) for name, each in vocabularies.item.items()}
        rows = np.full((len(row_of), count + 1), UNSEEN, np.int32)
        for of_feature, (name, rows_of) in zip(rows, row_of.items(), strict=True):
            is_id = name == ITEM_ID
            ids = catalogue.item_ids if is_id else catalogue.attributes[name]
            of_feature[:count] = rows_of(ids)
        numbers = None
        if normalisers := vocabularies.numbers_of("item"):
            numbers = np.full((count + 1, len(normalisers)), np.nan, np.float32)
            for place, (name, normaliser) in enumerate(normalisers.items()):
                numbers[:count, place] = normaliser(catalogue.numbers[name])
        index = HashIndex(catalogue.item_ids)
        bags = _bags(items, catalogue.bags, vocabularies, index)
        return cls(index, tuple(row_of), rows, numbers, bags, row_of[ITEM_ID])

    def of(self, item_ids: np.ndarray) -> EncodedItems:
        """What is known of some items.

        ``item_ids``: (n,) int64, ascending, each once. Of one that is not in the catalogue there is
        its id, which training may have seen, and its vector; all else is as never seen, or null.
        """
        place = self.index.rows(item_ids)  # -1 is the unknown item
        rows = self.rows[:, place]
        unknown = place < 0
        if unknown.any() and ITEM_ID in self.features:
            rows[self.features.index(ITEM_ID), unknown] = self.row_of_id(item_ids[unknown])
        numbers = None if self.numbers is None else self.numbers[place]
        at = np.where(unknown, len(self.index), place)
        bags = {name: bag.take(at)[0] for name, bag in self.bags.items()}
        return EncodedItems(self.features, item_ids, rows, None, numbers, bags)


def _bags(
    items: Path, kinds: Mapping[str, Bag], vocabularies: Vocabularies, index: HashIndex
) -> dict[str, Jagged]:
    """By name the table rows of all items, in the order of ``index``, and an empty list."""
    parts = list(read_bags(items, kinds))
    if not parts:
        return {}
    empty = Jagged(np.empty(0, np.int32), np.zeros(2, np.int64))
    order = np.argsort(np.concatenate([index.rows(item_ids) for item_ids, _ in parts]))
    found = {}
    for name, vocabulary in vocabularies.item_bag.items():
        bags = Jagged.concatenate([of_part[name] for _, of_part in parts])
        rows = Jagged(TableRows(vocabulary)(bags.values), bags.offsets)
        found[name] = Jagged.concatenate([rows.take(order)[0], empty])
    return found
