"""`requests/train` and `requests/test`: one row a request, candidates and behaviours jagged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, values_and_offsets
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import INT8_LIST, INT64, INT64_LIST, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.contract.features import (
    CATEGORIES,
    CATEGORY_LISTS,
    Categorical,
    TextIds,
    categorical_columns,
    text_ids_of,
)
from torchrec_mm.errors import InputError

LISTS = {"behaviour_item_ids": INT64_LIST, "candidate_item_ids": INT64_LIST, "labels": INT8_LIST}
NULLABLE = {"timestamp": INT64}
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
    """

    user_ids: np.ndarray
    timestamps: np.ndarray | None
    behaviours: Jagged
    candidates: Jagged
    labels: np.ndarray
    features: Mapping[str, np.ndarray]
    behaviour_attributes: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Ids by feature: of users, contexts and behaviours."""
        return {"user_id": self.user_ids, **self.features, **self.behaviour_attributes}

    @property
    def num_impressions(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class RequestColumns:
    """What the columns of requests are, by their names and types.

    features: of users and contexts. behaviour_attributes: lists as long as the behaviours. Each by
    name in the order of the files. has_labels: False where labels are not read.
    """

    features: Mapping[str, Categorical]
    behaviour_attributes: Mapping[str, Categorical]
    has_labels: bool = True

    @classmethod
    def of(
        cls,
        folders: Iterable[ParquetFolder],
        known: "RequestColumns | None" = None,
        has_labels: bool = True,
    ) -> "RequestColumns":
        """The columns of all splits.

        Args:
            folders: one a split. known: the columns of a model, the only ones that are read;
                None: all must be usable.

        Raises:
            InputError: a further column that is of no kind that can be a feature, or not of the
                same in all files.
        """
        of_model = None if known is None else {**known.features, **known.behaviour_attributes}
        kinds = (*CATEGORIES, *CATEGORY_LISTS)
        further = categorical_columns(folders, NAMED, kinds, of_model)
        return cls(
            {name: column for name, column in further.items() if column.kind in CATEGORIES},
            {name: column for name, column in further.items() if column.kind in CATEGORY_LISTS},
            has_labels,
        )

    @property
    def lists(self) -> dict[str, pa.DataType]:
        """Types of the list columns, by name, that are read."""
        named = {n: kind for n, kind in LISTS.items() if n != "labels" or self.has_labels}
        return named | {name: column.kind for name, column in self.behaviour_attributes.items()}

    @property
    def required(self) -> dict[str, pa.DataType]:
        """Types of the columns that are read and hold a value in every row."""
        return {"user_id": INT64} | self.lists

    @property
    def nullable(self) -> dict[str, pa.DataType]:
        """Types of the other columns that are read."""
        return NULLABLE | {name: column.kind for name, column in self.features.items()}

    @property
    def text_ids(self) -> dict[str, TextIds]:
        """Of the columns of text, by name."""
        return text_ids_of({**self.features, **self.behaviour_attributes})

    def check(self, folder: ParquetFolder) -> None:
        """InputError for a folder without one of the columns, or with one of another type."""
        folder.require(self.features)
        folder.check(self.required, self.nullable)


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
    attributes = columns.behaviour_attributes
    lists = {
        name: _list_column(table[name], f"{where} column {name}", attributes.get(name))
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
    )


def _list_column(column: pa.ChunkedArray, field: str, attribute: Categorical | None) -> Jagged:
    """The lists of a column; those of an attribute as ids."""
    if attribute is None:
        return Jagged.from_arrow(column, field)
    values, offsets = values_and_offsets(column)
    return Jagged(attribute.ids(values, field), offsets)


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
