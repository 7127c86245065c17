"""The first pass over a source: ids become numbers, in the order in which they come.

A number takes half the space of an id or less, and is as good to look up: the second pass needs
neither the source's files nor a search.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.encode.count import FeatureIds, ItemCounts, LearnedAttribute
from torchrec_mm.data.encode.source import TRAIN, RequestSource
from torchrec_mm.data.encode.spool import Spool
from torchrec_mm.data.encoded.checks import weight_sums
from torchrec_mm.data.encoded.encoded import WEIGHT_SUMS
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class NumberedSplit:
    """A split whose ids are numbers.

    spool: the columns ``user_id`` (as they are), ``timestamp``, ``candidates``, ``labels``,
    ``behaviours``, ``request/NAME``, ``behaviour/NAME`` and ``impression/NAME``, and the numbers of
    ``request_number/NAME`` and ``impression_number/NAME``; with weights ``weights``, and of each
    request their sums, ``WEIGHT_SUMS``; ``sequence/EVENT``, items as ``behaviours``. counts: of its
    items, those of all sequences as behaviours.
    sizes: how many requests, impressions, behaviours and clicks, and of each ``sequence/EVENT``.
    has_time: whether every request has a time. has_weights: whether impressions have weights.
    """

    spool: Spool
    counts: ItemCounts
    sizes: Mapping[str, int]
    has_time: bool
    has_weights: bool


class Numbering:
    """Numbers the ids of all splits of a source.

    items: ids of the catalogue, in its order, then of candidates and behaviours. features: by
    name, of ``user_id``, the request, behaviour and impression features, and the bags of requests.
    attributes: by name, those of ``source.attributes_of_behaviours``. splits: by name, once they
    are numbered. times: the first and the last of them; None where there is none.
    """

    def __init__(self, source: RequestSource) -> None:
        self._source = source
        self.items = HashIndex(source.items.item_ids)
        of_lists = (*source.behaviour_features, *source.impression_features)
        names = (*source.request_features, *of_lists, *source.request_bags)
        self.features = {name: FeatureIds() for name in names}
        self.attributes = {name: self._catalogued(name) for name in source.attributes_of_behaviours}
        self.splits: dict[str, NumberedSplit] = {}
        self.times: tuple[int, int] | None = None

    def add(self, split: str, scratch: Path) -> None:
        """Read a split and spool it to the new folder ``scratch``.

        The source's InputErrors pass through; one for training weights that are all 0.
        """
        counts, has_time = ItemCounts(), True
        weight: float | None = None  # the most of any impression
        sizes = Counter(requests=0, impressions=0, behaviours=0, clicks=0)
        rows = self._source.num_rows(split)
        with (
            Spool(scratch, 2 + len(self._source.sequences)) as spool,
            tqdm(total=rows, desc=f"count {split}", unit="request", disable=None) as bar,
        ):
            for requests in self._source.chunks(split):
                has_time &= self._note_times(requests)
                candidates = self.items.add(requests.candidates.values)
                behaviours = self.items.add(requests.behaviours.values)
                further = {
                    f"sequence/{event}": self.items.add(requests.sequences[event].values)
                    for event in self._source.sequences
                }
                every = np.concatenate([behaviours, *further.values()]) if further else behaviours
                counts.add(candidates, every, len(self.items))
                self._learn_attributes(requests, behaviours)
                for name, items in further.items():
                    spool.append(name, items)
                    sizes[name] += len(items)
                spool.append("candidates", candidates)
                spool.append("behaviours", behaviours)
                self._spool(requests, spool, has_time, split == TRAIN)
                sizes["requests"] += len(requests)
                sizes["impressions"] += requests.num_impressions
                sizes["behaviours"] += len(behaviours)
                sizes["clicks"] += int(requests.labels.sum())
                if requests.weights is not None:
                    weight = max(weight or 0.0, float(requests.weights.max()))
                bar.update(len(requests))
        if weight == 0 and split == TRAIN:
            rule = f"requests/{split} column weights must hold one above 0"
            raise InputError(f"{rule}, got 0 for all {sizes['impressions']} impressions")
        is_weighted = weight is not None
        self.splits[split] = NumberedSplit(spool, counts, dict(sizes), has_time, is_weighted)

    def mean_length(self, bag: str) -> float:
        """Values a request, over all splits."""
        spools = [split.spool for split in self.splits.values()]
        values = sum(spool.num_values(f"request_bag/{bag}") for spool in spools)
        return values / sum(spool.num_requests for spool in spools)

    def forget_ids(self) -> None:
        """Give the memory of items and features back, once a ``Mapper`` knows their rows."""
        self.items, self.features = HashIndex(), {}

    def _note_times(self, requests: Requests) -> bool:
        """Whether the requests have times."""
        if requests.timestamps is None:
            return False
        first, last = int(requests.timestamps.min()), int(requests.timestamps.max())
        self.times = min(first, *(self.times or [first])), max(last, *(self.times or [last]))
        return True

    def _spool(self, requests: Requests, spool: Spool, has_time: bool, in_training: bool) -> None:
        further = (requests.sequences[event] for event in self._source.sequences)
        lists = (requests.candidates, requests.behaviours, *further)
        spool.append_lengths(*(each.lengths for each in lists))
        spool.append("user_id", requests.user_ids)
        spool.append("labels", requests.labels)
        if has_time:
            assert requests.timestamps is not None  # of these and of all before
            spool.append("timestamp", requests.timestamps)
        if requests.weights is not None:
            spool.append("weights", requests.weights)
            sums = weight_sums(requests.weights, requests.labels, requests.candidates)
            spool.append(WEIGHT_SUMS, sums.reshape(-1))
        for owner, names in (
            ("request", self._source.request_features),
            ("behaviour", self._source.behaviour_features),
            ("impression", self._source.impression_features),
        ):
            for name in names:
                numbers = self.features[name].number(requests.columns[name], in_training)
                spool.append(f"{owner}/{name}", numbers)
        for name in self._source.request_bags:
            bags = requests.bags[name]
            numbers = self.features[name].number(bags.values, in_training)
            spool.append_bag(f"request_bag/{name}", bags, numbers)
        for name in self._source.request_numbers:
            spool.append(f"request_number/{name}", requests.numbers[name])
        for name in self._source.impression_numbers:
            spool.append(f"impression_number/{name}", requests.impression_numbers[name])

    def _catalogued(self, name: str) -> LearnedAttribute:
        values = self._source.items.attributes[name]
        missing = self._source.missing
        known = np.full(len(values), True) if missing is None else values != missing
        return LearnedAttribute(np.where(known, values, 0), known)

    def _learn_attributes(self, requests: Requests, behaviours: np.ndarray) -> None:
        for name, attribute in self.attributes.items():
            values, items = requests.columns[name], behaviours
            if self._source.missing is not None:
                known = values != self._source.missing
                if not known.all():
                    values, items = values[known], items[known]
            attribute.learn(items, values, len(self.items))
