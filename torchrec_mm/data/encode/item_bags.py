"""Bags of items on their way to an encoded data set: never in memory as a whole."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import offsets_of, ragged_positions
from torchrec_mm.columns.npy_files import new_array
from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.count import FeatureIds
from torchrec_mm.data.encode.mapping import table_rows
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encode.spool import Spool
from torchrec_mm.data.encoded.item_files import bag_files
from torchrec_mm.data.encoded.vocabulary import UNSEEN, Vocabulary

BLOCK = 1 << 20  # values that are looked at together


class ItemBags:
    """The bags of N items of a catalogue, their values numbered as those of requests are.

    features: the values by name. places: (N,) int32, which item of the catalogue each is, in the
    order of the source's files. Values lie in a spool.
    """

    def __init__(self, source: RequestSource, scratch: Path) -> None:
        """Read all of them, and write their numbers to the new folder ``scratch``."""
        self.features = {name: FeatureIds() for name in source.items.bags}
        index = HashIndex(source.items.item_ids)
        places = [np.empty(0, np.int32)]
        lengths: dict[str, list[np.ndarray]] = {name: [] for name in self.features}
        with Spool(scratch) as self._spool:
            for item_ids, bags in source.bags_of_items():
                places.append(index.rows(item_ids))
                for name, bag in bags.items():
                    numbers = self.features[name].number(bag.values, in_training=False)
                    self._spool.append(name, numbers)
                    lengths[name].append(bag.lengths)
        self.places = np.concatenate(places)
        self._offsets = {name: offsets_of(np.concatenate(of)) for name, of in lengths.items()}

    def mean_length(self, name: str) -> float:
        """Values an item."""
        return float(self._offsets[name][-1]) / len(self.places)

    def trained(self, name: str, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values that training shows, (n,) int64, ascending, and how often: (n,) int64.

        ``shown``: (N,) int64, how often training shows each item of the catalogue.
        """
        ids = self.ids(name)
        counts = np.zeros(len(ids), np.int64)
        of_items, lengths = shown[self.places], np.diff(self._offsets[name])
        for begin, end, first, stop in self._blocks(self._offsets[name]):
            numbers = self._spool.read(name, slice(first, stop))
            weights = np.repeat(of_items[begin:end], lengths[begin:end])
            counts += np.bincount(numbers, weights, len(counts)).astype(np.int64)
        numbers = np.flatnonzero(counts)
        order = np.argsort(ids[numbers])
        return ids[numbers][order], counts[numbers][order]

    def ids(self, name: str) -> np.ndarray:
        """(n,) int64 values of a bag, by number."""
        return self.features[name].ids

    def save(
        self, folder: Path, all_items: AllItems, vocabularies: Mapping[str, Vocabulary]
    ) -> dict[str, np.ndarray]:
        """Write values and offsets of every bag, in the order of all U items; others have none.

        ``vocabularies``: by name, in the order of the files.

        Returns:
            By name (U,) int64, how many of an item's values are on row 0.
        """
        of_files = np.full(len(all_items), -1, np.int64)
        of_files[all_items.rows[self.places]] = np.arange(len(self.places))
        return {
            name: self._save(
                name, bag_files(folder, place), of_files, table_rows(vocabulary, self.ids(name))
            )
            for place, (name, vocabulary) in enumerate(vocabularies.items())
        }

    def _save(
        self, name: str, files: tuple[Path, Path], of_files: np.ndarray, of_numbers: np.ndarray
    ) -> np.ndarray:
        before = self._offsets[name]
        lengths = np.where(of_files >= 0, np.diff(before)[of_files], 0)
        starts, offsets = before[of_files], offsets_of(lengths)
        np.save(files[1], offsets)
        values = new_array(files[0], (int(offsets[-1]),), np.dtype(np.int32))
        unseen = np.zeros(len(lengths), np.int64)
        numbers = self._spool.mapped(name)
        for begin, end, first, stop in self._blocks(offsets):
            places = ragged_positions(starts[begin:end], lengths[begin:end])
            rows = of_numbers[numbers[places]]
            values[first:stop] = rows
            owners = np.repeat(np.arange(end - begin), lengths[begin:end])
            unseen[begin:end] = np.bincount(owners[rows == UNSEEN], minlength=end - begin)
        values.flush()
        return unseen

    @staticmethod
    def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """Lists of about ``BLOCK`` values, at least one: first and end of lists, and of values."""
        begin, total = 0, len(offsets) - 1
        while begin < total:
            end = int(np.searchsorted(offsets, offsets[begin] + BLOCK, "right")) - 1
            end = min(max(end, begin + 1), total)
            yield begin, end, int(offsets[begin]), int(offsets[end])
            begin = end
