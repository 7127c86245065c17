"""What the columns of `requests/` are, by their names and types."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.parquet import FLOAT64, INT8_LIST, INT64, INT64_LIST, STRING, is_list
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.feature_settings import FILE, IGNORE, FeatureSettings
from torchrec_mm.data.contract.features import (
    CATEGORIES,
    CATEGORY_LISTS,
    NUMBER_LISTS,
    NUMBERS,
    Bag,
    Categorical,
    Feature,
    Kinds,
    Numeric,
    feature_columns,
    of_kind,
)
from torchrec_mm.data.contract.items import NAMED as ITEM_COLUMNS
from torchrec_mm.errors import InputError

LISTS = {"behaviour_item_ids": INT64_LIST, "candidate_item_ids": INT64_LIST, "labels": INT8_LIST}
NULLABLE = {"timestamp": INT64}
WEIGHTS = {"weights": pa.list_(FLOAT64)}  # absent or whole
OF_CANDIDATES = "candidate_"  # begins the names of lists as long as the candidates
OF_ITEMS = "_item_ids"  # ends the names of behaviour sequences
OF_REQUESTS = Kinds((*CATEGORIES, *CATEGORY_LISTS), NUMBERS, CATEGORY_LISTS)
OF_IMPRESSIONS = Kinds(CATEGORY_LISTS, NUMBER_LISTS)
REQUEST_ID = "request_id"  # text: which answer of a scorer it was; no feature
NAMED = ("user_id", REQUEST_ID, *NULLABLE, *LISTS, *WEIGHTS)


@dataclass(frozen=True)
class RequestColumns:
    """What the columns of requests are, by their names and types.

    features, numbers, bags: of users and contexts. behaviour_attributes: lists as long as the
    behaviours. impression_features, impression_numbers: lists as long as the candidates, named
    ``candidate_...``. Each by name in the order of the files. has_labels: False where labels and
    weights are not read. sequences: events of the further behaviour sequences, in alphabetical
    order.
    """

    features: Mapping[str, Categorical]
    behaviour_attributes: Mapping[str, Categorical]
    impression_features: Mapping[str, Categorical] = field(default_factory=dict)
    numbers: Mapping[str, Numeric] = field(default_factory=dict)
    impression_numbers: Mapping[str, Numeric] = field(default_factory=dict)
    has_labels: bool = True
    bags: Mapping[str, Bag] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        folders: Sequence[ParquetFolder],
        settings: Mapping[str, FeatureSettings],
        known: "RequestColumns | None" = None,
        has_labels: bool = True,
    ) -> "RequestColumns":
        """The columns of all splits.

        Args:
            folders: one a split. settings: see ``feature_columns``.
            known: the columns of a model, the only ones that are read; None: all must be usable.

        Raises:
            InputError: a further column that is of no kind that can be a feature, or not of the
                same in all files; an attribute or a setting of a further behaviour sequence.
        """
        of_model = None if known is None else known.all
        sequences = _sequences(folders, settings) if known is None else known.sequences
        named = (*NAMED, *map(column_of, sequences))
        further = feature_columns(folders, named, _kinds_of, settings, of_model)
        categories, numbers = of_kind(further, Categorical), of_kind(further, Numeric)
        lists = {name: c for name, c in categories.items() if pa.types.is_list(c.kind)}
        _check_attributes(lists, sequences)
        return cls(
            {name: c for name, c in categories.items() if not pa.types.is_list(c.kind)},
            {name: c for name, c in lists.items() if not name.startswith(OF_CANDIDATES)},
            {name: c for name, c in lists.items() if name.startswith(OF_CANDIDATES)},
            {name: c for name, c in numbers.items() if not pa.types.is_list(c.kind)},
            {name: c for name, c in numbers.items() if pa.types.is_list(c.kind)},
            has_labels,
            of_kind(further, Bag),
            sequences,
        )

    @property
    def all(self) -> dict[str, Feature]:
        """All of them by name."""
        return {**self._of_requests, **self.behaviour_attributes, **self.of_candidates}

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Of users and contexts, of behaviours, and of impressions."""
        of_requests = self._of_requests
        return tuple(map(tuple, (of_requests, self.behaviour_attributes, self.of_candidates)))

    @property
    def of_candidates(self) -> dict[str, Feature]:
        """Features of impressions, by name."""
        return {**self.impression_features, **self.impression_numbers}

    @property
    def _of_requests(self) -> dict[str, Feature]:
        return {**self.features, **self.numbers, **self.bags}

    @property
    def lists(self) -> dict[str, pa.DataType]:
        """Types of the list columns, by name, that are read."""
        named = {n: kind for n, kind in LISTS.items() if n != "labels" or self.has_labels}
        named |= dict.fromkeys(map(column_of, self.sequences), INT64_LIST)
        further: dict[str, Feature] = {**self.behaviour_attributes, **self.of_candidates}
        return named | {name: column.kind for name, column in further.items()}

    @property
    def required(self) -> dict[str, pa.DataType]:
        """Types of the columns that are read and hold a value in every row."""
        return {"user_id": INT64} | self.lists

    @property
    def nullable(self) -> dict[str, pa.DataType]:
        """Types of the other columns that are read."""
        weights = WEIGHTS if self.has_labels else {}
        of_requests = {name: column.kind for name, column in self._of_requests.items()}
        return NULLABLE | weights | of_requests

    def without(self, names: Collection[str]) -> "RequestColumns":
        """All but some features of impressions."""
        kept = {name: each for name, each in self.of_candidates.items() if name not in names}
        return self._with(kept)

    def joined(self, of_candidates: Mapping[str, Feature]) -> "RequestColumns":
        """These, and more features of impressions."""
        return self._with({**self.of_candidates, **of_candidates})

    def _with(self, of_candidates: Mapping[str, Feature]) -> "RequestColumns":
        return replace(
            self,
            impression_features=of_kind(of_candidates, Categorical),
            impression_numbers=of_kind(of_candidates, Numeric),
        )

    def check(self, folder: ParquetFolder) -> None:
        """InputError for a folder without one of the columns, or with one of another type."""
        folder.require(self.all)
        folder.check(self.required, {**self.nullable, REQUEST_ID: STRING})


def check_named(
    settings: Mapping[str, FeatureSettings],
    data: Path,
    items: Iterable[str],
    requests: Iterable[Iterable[str]],
) -> None:
    """Refuse settings of a column that no folder has, or that the contract names.

    Args:
        settings: of the folder ``data``. items, requests: names of the columns there, by split.

    Raises:
        InputError: naming the column.
    """
    further = {*items} - {*ITEM_COLUMNS}
    for names in requests:
        further |= {*names} - {*NAMED}
    for name in settings:
        if name not in further:
            rule = f"{data / FILE} must name columns of items/ or requests/ that may be features"
            raise InputError(f"{rule}, got {name}")


def column_of(event: str) -> str:
    """Name of the column that holds the behaviour sequence of an event."""
    return event + OF_ITEMS


def _sequences(
    folders: Iterable[ParquetFolder], settings: Mapping[str, FeatureSettings]
) -> tuple[str, ...]:
    """Events of the lists called ``<event>_item_ids``, but for those of the contract."""
    found = {
        field.name.removesuffix(OF_ITEMS)
        for folder in folders
        for footer in folder.footers
        for field in footer.schema
        if field.name.endswith(OF_ITEMS) and field.name not in LISTS
        # Nothing but nulls may be lists as well, and is refused as such.
        if is_list(field.type) or pa.types.is_null(field.type)
    }
    events = [event for event in sorted(found) if event and not event.startswith(OF_CANDIDATES)]
    said = {event: settings.get(column_of(event)) for event in events}
    for event, settings_of_it in said.items():
        if settings_of_it is not None and settings_of_it.kind != IGNORE:
            rule = f"{FILE} must say nothing of a behaviour sequence but {IGNORE}"
            raise InputError(f"{rule}, got {column_of(event)}")
    return tuple(event for event, settings_of_it in said.items() if settings_of_it is None)


def _check_attributes(lists: Iterable[str], sequences: Iterable[str]) -> None:
    """InputError for a list called as an attribute of a further sequence, which has none."""
    for event in sequences:
        for name in lists:
            if name.startswith(f"{event}_behaviour_"):
                rule = f"requests/ column {name} must be left out"
                raise InputError(f"{rule}: {column_of(event)} has no attributes of its own")


def _kinds_of(name: str) -> Kinds:
    """What a further column may be."""
    return OF_IMPRESSIONS if name.startswith(OF_CANDIDATES) else OF_REQUESTS
