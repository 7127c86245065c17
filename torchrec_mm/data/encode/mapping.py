"""The second pass: numbers to the rows of an encoded data set."""

from collections import Counter

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import list_array
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES, column_of
from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.number import NumberedSplit, Numbering
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encode.spool import Stretch
from torchrec_mm.data.encoded.vocabulary import RARE, UNSEEN, Vocabularies, Vocabulary
from torchrec_mm.errors import InputError


class Mapper:
    """Maps stretches of numbered requests, several at the same time if need be."""

    def __init__(
        self, numbering: Numbering, all_items: AllItems, vocabularies: Vocabularies
    ) -> None:
        """Of the vocabularies, those of items are not used here."""
        self._item_rows = all_items.rows
        self._request, self._behaviour, self._impression = (
            {name: table_rows(v, numbering.features[name].ids) for name, v in group.items()}
            for group in (vocabularies.request, vocabularies.behaviour, vocabularies.impression)
        )
        self._bags = {
            name: table_rows(vocabulary, numbering.features[name].ids)
            for name, vocabulary in vocabularies.request_bag.items()
        }
        self._request_numbers = vocabularies.numbers_of("request")
        self._impression_numbers = vocabularies.numbers_of("impression")
        self._sequences = vocabularies.sequences

    def map(self, split: NumberedSplit, where: Stretch) -> tuple[pa.Table, Counter[str]]:
        """Some requests, and by feature but those of items how many ids are on row 0."""
        read, read_bag, unseen = split.spool.read, split.spool.read_bag, Counter[str]()
        num_candidates, num_behaviours, *further = split.spool.lengths(where.requests).T
        columns = {"user_id": to_arrow(read("user_id", where.requests))}
        if split.has_time:
            columns["timestamp"] = to_arrow(read("timestamp", where.requests))
        for name, of_numbers in self._request.items():
            rows = of_numbers[read(f"request/{name}", where.requests)]
            unseen[name] = int(np.count_nonzero(rows == UNSEEN))
            columns[f"request/{name}"] = to_arrow(rows)
        candidates = self._item_rows[read("candidates", where.candidates)]
        behaviours = self._item_rows[read("behaviours", where.behaviours)]
        columns["candidates"] = list_array(candidates, num_candidates)
        columns["labels"] = list_array(read("labels", where.candidates), num_candidates)
        if split.has_weights:
            columns["weights"] = list_array(read("weights", where.candidates), num_candidates)
        columns["behaviours"] = list_array(behaviours, num_behaviours)
        for event, lengths, at in zip(self._sequences, further, where.sequences, strict=True):
            items = self._item_rows[read(f"sequence/{event}", at)]
            columns[f"sequence/{event}"] = list_array(items, lengths)
        for name, of_numbers in self._behaviour.items():
            rows = of_numbers[read(f"behaviour/{name}", where.behaviours)]
            unseen[name] = int(np.count_nonzero(rows == UNSEEN))
            columns[f"behaviour/{name}"] = list_array(rows, num_behaviours)
        for name, of_numbers in self._impression.items():
            rows = of_numbers[read(f"impression/{name}", where.candidates)]
            unseen[name] = int(np.count_nonzero(rows == UNSEEN))
            columns[f"impression/{name}"] = list_array(rows, num_candidates)
        for name, of_numbers in self._bags.items():
            bags = read_bag(f"request_bag/{name}", where.requests)
            rows = of_numbers[bags.values]
            unseen[name] = int(np.count_nonzero(rows == UNSEEN))
            columns[f"request_bag/{name}"] = list_array(rows, bags.lengths)
        for name, normaliser in self._request_numbers.items():
            key = f"request_number/{name}"
            columns[key] = to_arrow(normaliser(read(key, where.requests)))
        for name, normaliser in self._impression_numbers.items():
            key = f"impression_number/{name}"
            columns[key] = list_array(normaliser(read(key, where.candidates)), num_candidates)
        return pa.table(columns), unseen


class TableRows:
    """``Vocabulary.rows`` by hashing: for many ids, or for few again and again."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Hash the ids of ``vocabulary``."""
        known, rare = len(vocabulary.known_ids), len(vocabulary.rare_ids)
        self._index = HashIndex(np.concatenate([vocabulary.known_ids, vocabulary.rare_ids]))
        self._rows = np.full(known + rare + 1, RARE, dtype=np.int32)
        self._rows[:known] = np.arange(2, known + 2)
        self._rows[-1] = UNSEEN  # where -1 points

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """(N,) int32 rows of ids, (N,) int64, in any order."""
        return self._rows[self._index.rows(ids)]


def table_rows(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """(N,) int32 rows of ids, (N,) int64: those of ``Vocabulary.rows``, of many in any order."""
    return TableRows(vocabulary)(ids)


def check_features(source: RequestSource, vocabularies: Vocabularies) -> None:
    """Refuse a source that lacks a feature of the vocabularies."""
    for has, wanted, where in (
        (source.request_features, vocabularies.request, "requests/"),
        (source.behaviour_features, vocabularies.behaviour, "requests/"),
        (source.impression_features, vocabularies.impression, "requests/"),
        (("item_id", *source.items.attributes), vocabularies.item, "items/"),
        (source.request_bags, vocabularies.request_bag, "requests/"),
        (source.items.bags, vocabularies.item_bag, "items/"),
        (source.request_numbers, vocabularies.numbers_of("request"), "requests/"),
        (source.impression_numbers, vocabularies.numbers_of("impression"), "requests/"),
        (source.items.numbers, vocabularies.numbers_of("item"), "items/"),
        (
            map(column_of, source.sequences),
            tuple(map(column_of, vocabularies.sequences)),
            "requests/",
        ),
    ):
        given = {*has}
        for name in wanted:
            if name not in given:
                rule = f"must have the column {name} that the ranker was trained with"
                if name.startswith(OF_CANDIDATES):
                    rule += f", or --at '{{{name}: ...}}' say which value impressions are given"
                raise InputError(f"{where} {rule}")
