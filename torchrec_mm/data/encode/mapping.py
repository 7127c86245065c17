"""The second pass over requests: ids to rows."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import list_array
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encoded.vocabulary import RARE, UNSEEN, Vocabularies, Vocabulary
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class Mapped:
    """Requests as a table of an encoded data set, and their items as rows of ``AllItems``.

    candidates, behaviours: int32 rows, end to end. lengths: (R, 2) int32, how many of each.
    """

    table: pa.Table
    candidates: np.ndarray
    behaviours: np.ndarray
    lengths: np.ndarray


class Mapper:
    """Maps requests. ``unseen`` counts ids on row 0 by feature of requests and behaviours."""

    def __init__(
        self, source: RequestSource, all_items: AllItems, vocabularies: Vocabularies
    ) -> None:
        """Of the vocabularies, those of requests and behaviours are used here."""
        self._all_items = all_items
        self._missing = source.missing
        self._attributes_of_behaviours = source.attributes_of_behaviours
        self._request = {n: _TableRows(v) for n, v in vocabularies.request.items()}
        self._behaviour = {n: _TableRows(v) for n, v in vocabularies.behaviour.items()}
        self.unseen = Counter(dict.fromkeys((*self._request, *self._behaviour), 0))

    def map(self, requests: Requests, with_time: bool) -> Mapped:
        """Map a piece of the source, and keep what its behaviours know of their items."""
        num_candidates, num_behaviours = requests.candidates.lengths, requests.behaviours.lengths
        candidates = self._all_items.rows(requests.candidates.values)
        behaviours = self._all_items.rows(requests.behaviours.values)
        self._learn_attributes(requests, behaviours)
        columns = {"user_id": requests.user_ids}
        if with_time:
            assert requests.timestamps is not None  # all of the split have one
            columns["timestamp"] = requests.timestamps
        for name, table_rows in self._request.items():
            columns[f"request/{name}"] = self._rows(name, table_rows, requests)
        columns["candidates"] = list_array(candidates, num_candidates)
        columns["labels"] = list_array(requests.labels, num_candidates)
        columns["behaviours"] = list_array(behaviours, num_behaviours)
        for name, table_rows in self._behaviour.items():
            rows = self._rows(name, table_rows, requests)
            columns[f"behaviour/{name}"] = list_array(rows, num_behaviours)
        lengths = np.stack([num_candidates, num_behaviours], axis=1).astype(np.int32)
        return Mapped(pa.table(columns), candidates, behaviours, lengths)

    def _learn_attributes(self, requests: Requests, behaviours: np.ndarray) -> None:
        for name in self._attributes_of_behaviours:
            values = requests.columns[name]
            if self._missing is None:
                self._all_items.learn_attribute(name, behaviours, values)
            else:
                known = values != self._missing
                self._all_items.learn_attribute(name, behaviours[known], values[known])

    def _rows(self, name: str, table_rows: "_TableRows", requests: Requests) -> np.ndarray:
        rows = table_rows(requests.columns[name])
        self.unseen[name] += np.count_nonzero(rows == UNSEEN)
        return rows


class _TableRows:
    """The rows of ``Vocabulary.rows``, for blocks of look-ups."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        known, rare = len(vocabulary.known_ids), len(vocabulary.rare_ids)
        self._index = HashIndex(np.concatenate([vocabulary.known_ids, vocabulary.rare_ids]))
        # One more at the end, where -1 points.
        self._rows = np.full(known + rare + 1, RARE, dtype=np.int32)
        self._rows[:known] = np.arange(2, known + 2)
        self._rows[-1] = UNSEEN

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return self._rows[self._index.rows(ids)]


def check_features(source: RequestSource, vocabularies: Vocabularies) -> None:
    """Refuse a source that lacks a feature of the vocabularies."""
    for has, wanted, where in (
        (source.request_features, vocabularies.request, "requests/"),
        (source.behaviour_features, vocabularies.behaviour, "requests/"),
        (("item_id", *source.items.attributes), vocabularies.item, "items/"),
    ):
        for name in wanted:
            if name not in has:
                rule = f"must have the column {name} that the ranker was trained with"
                raise InputError(f"{where} {rule}")
