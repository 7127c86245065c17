"""`requests/train` and `requests/test`: one row a request, candidates and behaviours jagged."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import INT8_LIST, INT64, INT64_LIST, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.contract.roles import further_columns
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
    features: categorical user and context features by column name, each (R,) int64.
    behaviour_attributes: by column name, int64 values aligned with ``behaviours.values``.
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
        """Categorical values by name: of users, contexts and behaviours."""
        return {"user_id": self.user_ids, **self.features, **self.behaviour_attributes}

    @property
    def num_impressions(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class RequestColumns:
    """What the columns of requests are, by their names and types.

    features: categorical user and context features. behaviour_attributes: lists as long as the
    behaviours. Each in the order of the files. has_labels: False where labels are not read.
    """

    features: tuple[str, ...]
    behaviour_attributes: tuple[str, ...]
    has_labels: bool = True

    @classmethod
    def of(
        cls,
        folders: Iterable[ParquetFolder],
        known: Collection[str] | None = None,
        has_labels: bool = True,
    ) -> "RequestColumns":
        """The columns of all splits.

        Args:
            folders: one a split. known: the features and attributes of a model, the only ones
                that are read; None: all must be usable.

        Raises:
            InputError: a further column that is neither int64 nor a list of them, or not the same
                in all files.
        """
        further = further_columns(folders, NAMED, [INT64, INT64_LIST], known)
        return cls(
            tuple(name for name, kind in further.items() if kind == INT64),
            tuple(name for name, kind in further.items() if kind == INT64_LIST),
            has_labels,
        )

    @property
    def lists(self) -> dict[str, pa.DataType]:
        """Types of the list columns, by name, that are read."""
        named = {n: kind for n, kind in LISTS.items() if n != "labels" or self.has_labels}
        return named | dict.fromkeys(self.behaviour_attributes, INT64_LIST)

    @property
    def required(self) -> dict[str, pa.DataType]:
        """Types of the columns that are read and must be there."""
        return dict.fromkeys(("user_id", *self.features), INT64) | self.lists


def parse_requests(
    table: pa.Table, where: Path | str, columns: RequestColumns, max_behaviours: int
) -> Requests:
    """Check a table of requests and take its columns apart; ``where`` names it in complaints.

    Raises:
        InputError: missing column, wrong type or unit, null, labels not as long as the candidates
            or outside {0, 1}, a request without candidates, behaviour attributes too long or short.
    """
    table = check_columns(table, where, columns.required, NULLABLE)
    if "timestamp" in table.column_names:
        check_seconds(where, "timestamp", table["timestamp"])
    lists = {n: Jagged.from_arrow(table[n], f"{where} column {n}") for n in columns.lists}
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
        features={name: to_numpy(table[name]) for name in columns.features},
        behaviour_attributes={
            name: lists[name].values[kept] for name in columns.behaviour_attributes
        },
    )


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
