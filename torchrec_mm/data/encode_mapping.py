"""The second pass over requests: ids to rows."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from torchrec_mm.data.encode_source import RequestSource
from torchrec_mm.data.encode_universe import Universe
from torchrec_mm.data.encode_writer import request_table
from torchrec_mm.data.requests import Requests
from torchrec_mm.data.vocabulary import UNSEEN, Vocabularies, Vocabulary
from torchrec_mm.errors import InputError


class Mapper:
    """Maps requests, and counts what has no row of its own.

    item_rows: (F, U) int32, table row of each item of the universe in each item feature.
    behaviour_item_features: those that behaviours have. unseen: by feature, ids on row 0, counted
    by occurrence in all requests mapped so far. disagreements: by attribute that behaviours
    repeat, how often they told another value than the item's.
    """

    def __init__(
        self, source: RequestSource, universe: Universe, vocabularies: Vocabularies
    ) -> None:
        """Look up every item of the universe.

        Raises:
            InputError: a feature of the vocabularies that the source lacks.
        """
        for name in vocabularies.item:
            if name != "item_id":
                _check_has(universe.attributes, name, "items/")
        self.universe = universe
        self.vocabularies = vocabularies
        self.item_rows = universe.table_rows(vocabularies.item)
        self.behaviour_item_features = [
            name for name in vocabularies.item if name in source.behaviour_item_features
        ]
        self.missing = source.missing
        self.unseen: Counter[str] = Counter()
        self.disagreements: Counter[str] = Counter()

    def table(self, requests: Requests, where: str, with_time: bool) -> pa.Table:
        """Requests as a table of an encoded data set.

        Raises:
            InputError: a column of the vocabularies that the requests lack; ``where`` names them.
        """
        candidates, behaviours = self._items(requests)
        columns = {"user_id": requests.user_ids}
        if with_time:
            columns["timestamp"] = requests.timestamps
        given = {"user_id": requests.user_ids, **requests.features}
        for name, vocabulary in self.vocabularies.request.items():
            columns[f"request/{name}"] = self._rows(name, vocabulary, given, where)
        columns["candidates"] = (candidates, requests.candidates.lengths)
        columns["labels"] = (requests.labels, requests.candidates.lengths)
        columns["behaviours"] = (behaviours, requests.behaviours.lengths)
        for name, vocabulary in self.vocabularies.behaviour.items():
            rows = self._rows(name, vocabulary, requests.behaviour_attributes, where)
            columns[f"behaviour/{name}"] = (rows, requests.behaviours.lengths)
        return request_table(columns)

    def _items(self, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
        """Rows of candidates and behaviours in the universe."""
        candidates = requests.candidates.values
        rows = self.universe.rows(np.concatenate([candidates, requests.behaviours.values]))
        candidate_rows, behaviour_rows = rows[: len(candidates)], rows[len(candidates) :]
        for name, table_rows in zip(self.vocabularies.item, self.item_rows, strict=True):
            asked = rows if name in self.behaviour_item_features else candidate_rows
            self.unseen[name] += np.count_nonzero(table_rows[asked] == UNSEEN)
        for name in requests.behaviour_attributes.keys() & self.universe.attributes.keys():
            told, ours = requests.behaviour_attributes[name], self.universe.attributes[name]
            differs = told != ours[behaviour_rows]
            if self.missing is not None:
                differs &= told != self.missing
            self.disagreements[name] += np.count_nonzero(differs)
        return candidate_rows, behaviour_rows

    def _rows(
        self, name: str, vocabulary: Vocabulary, given: Mapping[str, np.ndarray], where: str
    ) -> np.ndarray:
        _check_has(given, name, where)
        distinct, inverse = np.unique(given[name], return_inverse=True)
        rows = vocabulary.rows(distinct).astype(np.int32)[inverse]
        self.unseen[name] += np.count_nonzero(rows == UNSEEN)
        return rows


def _check_has(given: Mapping[str, np.ndarray], name: str, where: str) -> None:
    if name not in given:
        raise InputError(f"{where} must have the column {name} that the ranker was trained with")
