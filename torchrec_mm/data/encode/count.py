"""What a source of requests holds: which ids there are, and how often each item occurs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from torchrec_mm.columns.id_set import IdSet
from torchrec_mm.data.encode.source import TRAIN, RequestSource


@dataclass(frozen=True)
class DistinctIds:
    """Ids of all splits of a source.

    item_ids: (N,) int64, ascending, candidates and behaviours of all splits. features: by name,
    distinct values in training, ascending, of ``user_id``, the request features and the behaviour
    features. has_time: by split, whether every request has a time. times: the first and the last
    of them; None where there is none.
    """

    item_ids: np.ndarray
    features: Mapping[str, np.ndarray]
    has_time: Mapping[str, bool]
    times: tuple[int, int] | None


def find_distinct_ids(source: RequestSource) -> DistinctIds:
    """Read all splits once; the source's InputErrors pass through."""
    items = IdSet()
    names = (*source.request_features, *source.behaviour_features)
    features = {name: IdSet() for name in names}
    has_time = dict.fromkeys(source.splits, True)
    times: list[int] = []
    for split in source.splits:
        rows = source.num_rows(split)
        with tqdm(total=rows, desc=f"count {split}", unit="request", disable=None) as bar:
            for requests in source.chunks(split):
                items.add(requests.behaviours.values)
                items.add(requests.candidates.values)
                if split == TRAIN:
                    for name, ids in features.items():
                        ids.add(requests.columns[name])
                has_time[split] &= requests.timestamps is not None
                if requests.timestamps is not None:
                    times += [requests.timestamps.min(), requests.timestamps.max()]
                bar.update(len(requests))
    return DistinctIds(
        items.result(),
        {name: ids.result() for name, ids in features.items()},
        has_time,
        (min(times), max(times)) if times else None,
    )


@dataclass(frozen=True)
class ItemCounts:
    """candidates, behaviours: (U,) int64 occurrences of each item in a split."""

    candidates: np.ndarray
    behaviours: np.ndarray

    @classmethod
    def none(cls, num_items: int) -> "ItemCounts":
        return cls(np.zeros(num_items, np.int64), np.zeros(num_items, np.int64))

    def add(self, candidates: np.ndarray, behaviours: np.ndarray) -> None:
        """Count a block of items, given by their rows among all items."""
        np.add.at(self.candidates, candidates, np.int64(1))
        np.add.at(self.behaviours, behaviours, np.int64(1))

    def total(self, of_items: np.ndarray, with_behaviours: bool) -> int:
        """Occurrences of the items where ``of_items``, (U,) bool, is True."""
        counts = [self.candidates, self.behaviours] if with_behaviours else [self.candidates]
        return sum(int(each[of_items].sum()) for each in counts)
