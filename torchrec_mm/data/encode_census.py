"""The first pass over requests: which ids there are, and what training shows of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from torchrec_mm.data.encode_source import RequestSource
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.requests import Requests
from torchrec_mm.data.tally import FirstValues, IdTally

TRAIN = "train"


@dataclass(frozen=True)
class Census:
    """Ids of all splits of a source.

    item_ids: (N,) int64, ascending, candidates and behaviours of all splits. shown: (N,) int64,
    how often training has each as either. frequency: training candidates alone.
    features: distinct training values, ascending, of ``user_id``, the request features and the
    behaviour features. told: by item attribute that behaviours repeat, the items it was told of,
    ascending, and the first value of each. has_time: by split, whether every request has a time.
    """

    item_ids: np.ndarray
    shown: np.ndarray
    frequency: ItemFrequency
    features: Mapping[str, np.ndarray]
    told: Mapping[str, tuple[np.ndarray, np.ndarray]]
    has_time: Mapping[str, bool]


def take_census(source: RequestSource) -> Census:
    """Read all splits once; the source's InputErrors pass through."""
    return _Counting(source).run()


class _Counting:
    def __init__(self, source: RequestSource) -> None:
        self.source = source
        self.items, self.candidates = IdTally(), IdTally()
        told = [n for n in source.columns.behaviour_attributes if n in source.items.attributes]
        self.told = {name: FirstValues() for name in told}
        features = {"user_id", *source.columns.features, *source.columns.behaviour_attributes}
        self.features = {name: IdTally() for name in features - {*told}}

    def run(self) -> Census:
        has_time = dict.fromkeys(self.source.splits, True)
        for split in self.source.splits:
            rows = self.source.num_rows(split)
            with tqdm(total=rows, desc=f"count {split}", unit="request", disable=None) as bar:
                for requests, _ in self.source.chunks(split):
                    self._add(requests, split == TRAIN)
                    has_time[split] &= requests.timestamps is not None
                    bar.update(len(requests))
        item_ids, shown = self.items.result()
        return Census(
            item_ids=item_ids,
            shown=shown,
            frequency=ItemFrequency(*self.candidates.result()),
            features={name: tally.result()[0] for name, tally in self.features.items()},
            told={name: values.result() for name, values in self.told.items()},
            has_time=has_time,
        )

    def _add(self, requests: Requests, is_train: bool) -> None:
        behaviours, candidates = requests.behaviours.values, requests.candidates.values
        self.items.add(behaviours, counted=is_train)
        self.items.add(candidates, counted=is_train)
        for name, first in self.told.items():
            told = requests.behaviour_attributes[name]
            known = slice(None) if self.source.missing is None else told != self.source.missing
            first.add(behaviours[known], told[known])
        if not is_train:
            return
        self.candidates.add(candidates)
        columns = {"user_id": requests.user_ids} | {
            **requests.features,
            **requests.behaviour_attributes,
        }
        for name, tally in self.features.items():
            tally.add(columns[name])
