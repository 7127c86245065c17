"""Where requests to encode come from, in pieces that fit in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.ahead import in_order
from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.parquet import FLOAT64
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.feature_settings import read_settings
from torchrec_mm.data.contract.features import Bag, Categorical, Feature, Numeric
from torchrec_mm.data.contract.fixed_values import FixedValues
from torchrec_mm.data.contract.items import ItemCatalogue, open_items, read_bags, read_catalogue
from torchrec_mm.data.contract.request_columns import RequestColumns, check_named
from torchrec_mm.data.contract.requests import Requests, parse_requests
from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary
from torchrec_mm.errors import InputError

TRAIN = "train"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class RequestSource(Protocol):
    """Requests by split, each read once, and the items they are about.

    items: the catalogue. request_features: ``user_id`` and the features of users and contexts.
    behaviour_features: the attributes of behaviours. attributes_of_behaviours: item attributes
    that come with each behaviour too, for items that the catalogue lacks or does not know them of.
    behaviour_item_features: the item features that behaviours have. missing: the id that stands
    for "not known" in any feature, if there is one. impression_features: of impressions.
    request_numbers, impression_numbers: the numeric features of users and contexts, and of
    impressions. request_bags: the bags of users and contexts. further: what the features are, by
    name; those of text know all their texts once everything has been read. max_behaviours: the
    newest behaviours kept of each request. notes: counts for the reader of ``meta.json``.
    sequences: events of the further behaviour sequences, in alphabetical order.
    """

    splits: Sequence[str]
    items: ItemCatalogue
    request_features: Sequence[str]
    behaviour_features: Sequence[str]
    attributes_of_behaviours: Sequence[str]
    behaviour_item_features: Sequence[str]
    missing: int | None
    impression_features: Sequence[str]
    request_numbers: Sequence[str]
    impression_numbers: Sequence[str]
    request_bags: Sequence[str]
    further: Mapping[str, Feature]
    max_behaviours: int
    notes: dict[str, int]
    sequences: Sequence[str]

    def num_rows(self, split: str) -> int:
        """How many requests ``chunks`` goes through, for the progress bar."""

    def chunks(self, split: str) -> Iterator[Requests]:
        """The split's requests in order, checked, in pieces that fit in memory."""

    def bags_of_items(self) -> Iterator[tuple[np.ndarray, dict[str, Jagged]]]:
        """Item ids and bags of all items of the catalogue, in pieces; see ``read_bags``."""


class RequestFolders:
    """Folders of requests by split, and the folder ``items/``."""

    attributes_of_behaviours: Sequence[str] = ()
    missing: int | None = None
    notes: dict[str, int] = {}

    def __init__(
        self,
        folders: Mapping[str, Path],
        items: Path,
        *,
        max_behaviours: int,
        known: Vocabularies | None = None,
        has_labels: bool = True,
        at: Mapping[str, Any] = NOTHING,
    ) -> None:
        """Read the catalogue, and of the requests the columns' names.

        Args:
            folders: of requests, by split. items: in the layout of ``items/``.
            max_behaviours: the newest behaviours kept of each request.
            known: of a model that scores the requests: only what it needs is read.
            has_labels: whether labels are read.
            at: values that all impressions are given, by feature of the model.

        Raises:
            InputError: a missing, empty or unreadable folder, files of other columns; what
                ``FixedValues.of`` refuses.
        """
        self.splits: Sequence[str] = list(folders)
        self.max_behaviours = max_behaviours
        self.folders = {split: ParquetFolder(folder) for split, folder in folders.items()}
        of_requests = None if known is None else known_columns(known)
        settings = {} if known is not None else read_settings(items.parent)
        opened = list(self.folders.values())
        of_model = {} if of_requests is None else of_requests.of_candidates
        self._fixed = FixedValues.of(at, of_model)
        self._read = RequestColumns.of(opened, settings, of_requests, has_labels).without(at)
        for requests in self.folders.values():
            self._read.check(requests)
        self.columns = self._read.joined({name: of_model[name] for name in at})
        self.request_features: Sequence[str] = ("user_id", *self.columns.features)
        self.behaviour_features: Sequence[str] = tuple(self.columns.behaviour_attributes)
        self.items = read_catalogue(items, None if known is None else known_items(known))
        if settings:
            names = [folder.names for folder in opened]
            check_named(settings, items.parent, open_items(items).names, names)
        self.impression_features: Sequence[str] = tuple(self.columns.impression_features)
        self.request_numbers: Sequence[str] = tuple(self.columns.numbers)
        self.impression_numbers: Sequence[str] = tuple(self.columns.impression_numbers)
        self.request_bags: Sequence[str] = tuple(self.columns.bags)
        self.sequences: Sequence[str] = self.columns.sequences
        self.further: Mapping[str, Feature] = {**self.items.columns, **self.columns.all}
        of_items = "item_id", *self.items.attributes, *self.items.bags
        self.behaviour_item_features: Sequence[str] = of_items
        self._items = items

    def num_rows(self, split: str) -> int:
        return self.folders[split].num_rows

    def chunks(self, split: str) -> Iterator[Requests]:
        """The requests in order of file names; a candidate outside ``items/`` is refused."""
        index = HashIndex(self.items.item_ids)
        groups = self.folders[split].groups(self._read.required, self._read.nullable)
        yield from in_order(self._parsed(chunks, index) for chunks in groups)

    def bags_of_items(self) -> Iterator[tuple[np.ndarray, dict[str, Jagged]]]:
        return read_bags(self._items, self.items.bags)

    def _parsed(
        self, chunks: Iterator[tuple[pa.Table, str]], index: HashIndex
    ) -> Iterator[Requests]:
        for table, where in chunks:
            table = self._fixed.put(table)
            requests = parse_requests(table, where, self.columns, self.max_behaviours)
            unknown = index.rows(requests.candidates.values) < 0
            if unknown.any():
                rule = f"{where} column candidate_item_ids must hold ids of items/ only"
                raise InputError(f"{rule}, got {requests.candidates.values[unknown][0]}")
            yield requests


def known_columns(known: Vocabularies) -> RequestColumns:
    """Those of requests that a model knows."""
    return RequestColumns(
        _known(known.request),
        _known(known.behaviour, is_list=True),
        _known(known.impression, is_list=True),
        _known_numbers(known, "request"),
        _known_numbers(known, "impression", is_list=True),
        bags=_known_bags(known.request_bag),
        sequences=known.sequences,
    )


def known_items(known: Vocabularies) -> dict[str, Feature]:
    bags = _known_bags(known.item_bag)
    return {**_known(known.item), **_known_numbers(known, "item"), **bags}


def _known_bags(vocabularies: Mapping[str, Vocabulary]) -> dict[str, Bag]:
    return {name: Bag(each) for name, each in _known(vocabularies).items()}


def _known_numbers(known: Vocabularies, group: str, is_list: bool = False) -> dict[str, Numeric]:
    kind = pa.list_(FLOAT64) if is_list else FLOAT64
    return {name: Numeric(kind, each.log1p) for name, each in known.numbers_of(group).items()}


def _known(vocabularies: Mapping[str, Vocabulary], is_list: bool = False) -> dict[str, Categorical]:
    return {
        name: Categorical.known(vocabulary.texts, is_list)
        for name, vocabulary in vocabularies.items()
        if name not in ("user_id", "item_id")
    }
