"""`requests/train` and `requests/test`: one row a request, candidates and behaviours jagged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, values_and_offsets
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import INT8_LIST, INT64, INT64_LIST, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.contract.feature_settings import FILE, FeatureSettings
from torchrec_mm.data.contract.features import (
    CATEGORIES,
    CATEGORY_LISTS,
    NUMBER_LISTS,
    NUMBERS,
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
OF_CANDIDATES = "candidate_"  # begins the names of lists as long as the candidates
OF_REQUESTS = Kinds((*CATEGORIES, *CATEGORY_LISTS), NUMBERS)
OF_IMPRESSIONS = Kinds(CATEGORY_LISTS, NUMBER_LISTS)
NAMED = ("user_id", *NULLABLE, *LISTS)


@dataclass(frozen=True)
class Requests:
    """A set of requests in memory, columns as flat arrays; ids as they are on disk.

    user_ids: (R,) int64. timestamps: (R,) int64 seconds, or None.
    behaviours: item ids, oldest first, at most ``max_behaviours`` newest ones kept.
    candidates: item ids, at least one a request.
    labels: (impressions,) int8 in {0, 1}; all 0 where they were not read.
    features: ids of user and context features by column name, each (R,) int64.
    behaviour_attributes: ids by column name, int64, aligned with ``behaviours.values``.
    impression_features: likewise, aligned with ``candidates.values``.
    numbers: of users and contexts by column name, each (R,) float64, NaN for null.
    impression_numbers: likewise, aligned with ``candidates.values``.
    """

    user_ids: np.ndarray
    timestamps: np.ndarray | None
    behaviours: Jagged
    candidates: Jagged
    labels: np.ndarray
    features: Mapping[str, np.ndarray]
    behaviour_attributes: Mapping[str, np.ndarray]
    impression_features: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    impression_numbers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Ids by feature: of users, contexts, behaviours and impressions."""
        of_lists = {**self.behaviour_attributes, **self.impression_features}
        return {"user_id": self.user_ids, **self.features, **of_lists}

    @property
    def num_impressions(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class RequestColumns:
    """What the columns of requests are, by their names and types.

    features, numbers: of users and contexts. behaviour_attributes: lists as long as the behaviours.
    impression_features, impression_numbers: lists as long as the candidates, named
    ``candidate_...``. Each by name in the order of the files. has_labels: False where labels are
    not read.
    """

    features: Mapping[str, Categorical]
    behaviour_attributes: Mapping[str, Categorical]
    impression_features: Mapping[str, Categorical] = field(default_factory=dict)
    numbers: Mapping[str, Numeric] = field(default_factory=dict)
    impression_numbers: Mapping[str, Numeric] = field(default_factory=dict)
    has_labels: bool = True

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
                same in all files.
        """
        of_model = None if known is None else known.all
        further = feature_columns(folders, NAMED, _kinds_of, settings, of_model)
        categories, numbers = of_kind(further, Categorical), of_kind(further, Numeric)
        lists = {name: c for name, c in categories.items() if pa.types.is_list(c.kind)}
        return cls(
            {name: c for name, c in categories.items() if not pa.types.is_list(c.kind)},
            {name: c for name, c in lists.items() if not name.startswith(OF_CANDIDATES)},
            {name: c for name, c in lists.items() if name.startswith(OF_CANDIDATES)},
            {name: c for name, c in numbers.items() if not pa.types.is_list(c.kind)},
            {name: c for name, c in numbers.items() if pa.types.is_list(c.kind)},
            has_labels,
        )

    @property
    def all(self) -> dict[str, Feature]:
        """All of them by name."""
        return {**self._scalars, **self.behaviour_attributes, **self._of_candidates}

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Of users and contexts, of behaviours, and of impressions."""
        return tuple(map(tuple, (self._scalars, self.behaviour_attributes, self._of_candidates)))

    @property
    def _of_candidates(self) -> dict[str, Feature]:
        return {**self.impression_features, **self.impression_numbers}

    @property
    def _scalars(self) -> dict[str, Feature]:
        return {**self.features, **self.numbers}

    @property
    def lists(self) -> dict[str, pa.DataType]:
        """Types of the list columns, by name, that are read."""
        named = {n: kind for n, kind in LISTS.items() if n != "labels" or self.has_labels}
        further: dict[str, Feature] = {**self.behaviour_attributes, **self._of_candidates}
        return named | {name: column.kind for name, column in further.items()}

    @property
    def required(self) -> dict[str, pa.DataType]:
        """Types of the columns that are read and hold a value in every row."""
        return {"user_id": INT64} | self.lists

    @property
    def nullable(self) -> dict[str, pa.DataType]:
        """Types of the other columns that are read."""
        return NULLABLE | {name: column.kind for name, column in self._scalars.items()}

    def check(self, folder: ParquetFolder) -> None:
        """InputError for a folder without one of the columns, or with one of another type."""
        folder.require(self.all)
        folder.check(self.required, self.nullable)


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


def parse_requests(
    table: pa.Table, where: Path | str, columns: RequestColumns, max_behaviours: int
) -> Requests:
    """Check a table of requests and take its columns apart; ``where`` names it in complaints.

    Raises:
        InputError: missing column, wrong type or unit, null, labels not as long as the candidates
            or outside {0, 1}, a request without candidates, behaviour attributes too long or short.
    """
    table = check_columns(table, where, columns.required, columns.nullable)
    if "timestamp" in table.column_names:
        check_seconds(where, "timestamp", table["timestamp"])
    features = columns.all
    lists = {
        name: _list_column(table[name], f"{where} column {name}", features.get(name))
        for name in columns.lists
    }
    behaviours, candidates = lists["behaviour_item_ids"], lists["candidate_item_ids"]
    _check_candidates(where, candidates)
    labels = np.zeros(len(candidates.values), np.int8)
    if columns.has_labels:
        _check_labels(where, candidates, lists["labels"])
        labels = lists["labels"].values
    for name in columns.behaviour_attributes:
        check_same_lengths(where, name, lists[name], "behaviour_item_ids", behaviours)
    for name in (*columns.impression_features, *columns.impression_numbers):
        check_same_lengths(where, name, lists[name], "candidate_item_ids", candidates)
    kept: np.ndarray | slice = slice(None)
    if behaviours.lengths.max(initial=0) > max_behaviours:
        behaviours, kept = behaviours.newest(max_behaviours)
    return Requests(
        user_ids=to_numpy(table["user_id"]),
        timestamps=_timestamps(table),
        behaviours=behaviours,
        candidates=candidates,
        labels=labels,
        features={
            name: column.ids(in_one(table[name]), f"{where} column {name}")
            for name, column in columns.features.items()
        },
        behaviour_attributes={
            name: lists[name].values[kept] for name in columns.behaviour_attributes
        },
        impression_features={name: lists[name].values for name in columns.impression_features},
        numbers={
            name: column.values(in_one(table[name]), f"{where} column {name}")
            for name, column in columns.numbers.items()
        },
        impression_numbers={name: lists[name].values for name in columns.impression_numbers},
    )


def _list_column(column: pa.ChunkedArray, field: str, feature: Feature | None) -> Jagged:
    """The lists of a column; those of a feature as its ids or numbers."""
    if feature is None:
        return Jagged.from_arrow(column, field)
    values, offsets = values_and_offsets(column)
    if isinstance(feature, Numeric):
        return Jagged(feature.values(values, field, offsets), offsets)
    return Jagged(feature.ids(values, field), offsets)


def _kinds_of(name: str) -> Kinds:
    """What a further column may be."""
    return OF_IMPRESSIONS if name.startswith(OF_CANDIDATES) else OF_REQUESTS


def _timestamps(table: pa.Table) -> np.ndarray | None:
    if "timestamp" not in table.column_names or table["timestamp"].null_count:
        return None
    return to_numpy(table["timestamp"])


def _check_candidates(where: Path | str, candidates: Jagged) -> None:
    if (candidates.lengths == 0).any():
        row = int(np.argmax(candidates.lengths == 0))
        raise InputError(f"{where} column candidate_item_ids must not be empty, row {row} is")


def _check_labels(where: Path | str, candidates: Jagged, labels: Jagged) -> None:
    check_same_lengths(where, "labels", labels, "candidate_item_ids", candidates)
    wrong = (labels.values != 0) & (labels.values != 1)
    if wrong.any():
        rule = f"{where} column labels must be 0 or 1"
        raise InputError(f"{rule}, got {labels.values[np.argmax(wrong)]}")


def check_same_lengths(where: Path | str, name: str, a: Jagged, other: str, b: Jagged) -> None:
    """Refuse two list columns that differ in length in some row: InputError."""
    wrong = a.lengths != b.lengths
    if wrong.any():
        row = int(np.argmax(wrong))
        rule = f"{where} column {name} must be as long as {other}"
        raise InputError(f"{rule}, row {row} has {a.lengths[row]} and {b.lengths[row]}")
