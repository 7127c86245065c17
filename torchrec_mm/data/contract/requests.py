"""`requests/train` and `requests/test`: one row a request, candidates and behaviours jagged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, values_and_offsets
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.contract.features import Categorical, Feature, Numeric
from torchrec_mm.data.contract.request_columns import WEIGHTS, RequestColumns, column_of
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class Requests:
    """A set of requests in memory, columns as flat arrays; ids as they are on disk.

    user_ids: (R,) int64. timestamps: (R,) int64 seconds, or None.
    behaviours: item ids, oldest first, at most ``max_behaviours`` newest ones kept.
    candidates: item ids, at least one a request.
    labels: (impressions,) int8 in {0, 1}; all 0 where they were not read.
    weights: (impressions,) float32 >= 0, of each in the loss, or None: all alike.
    sequences: further behaviours by event, as ``behaviours``.
    features: ids of user and context features by column name, each (R,) int64.
    behaviour_attributes: ids by column name, int64, aligned with ``behaviours.values``.
    impression_features: likewise, aligned with ``candidates.values``.
    numbers: of users and contexts by column name, each (R,) float64, NaN for null.
    impression_numbers: likewise, aligned with ``candidates.values``.
    bags: ids of each request by column name, int64.
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
    weights: np.ndarray | None = None
    bags: Mapping[str, Jagged] = field(default_factory=dict)
    sequences: Mapping[str, Jagged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, chosen: np.ndarray) -> "Requests":
        """The requests at positions ``chosen``, in that order."""
        candidates, shown = self.candidates.take(chosen)
        behaviours, past = self.behaviours.take(chosen)

        def each(of: Mapping[str, np.ndarray], at: np.ndarray) -> dict[str, np.ndarray]:
            return {name: values[at] for name, values in of.items()}

        return Requests(
            self.user_ids[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
            behaviours,
            candidates,
            self.labels[shown],
            each(self.features, chosen),
            each(self.behaviour_attributes, past),
            each(self.impression_features, shown),
            each(self.numbers, chosen),
            each(self.impression_numbers, shown),
            None if self.weights is None else self.weights[shown],
            {name: bags.take(chosen)[0] for name, bags in self.bags.items()},
            {event: items.take(chosen)[0] for event, items in self.sequences.items()},
        )

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Ids by feature: of users, contexts, behaviours and impressions."""
        of_lists = {**self.behaviour_attributes, **self.impression_features}
        return {"user_id": self.user_ids, **self.features, **of_lists}

    @property
    def num_impressions(self) -> int:
        return len(self.labels)


def parse_requests(
    table: pa.Table, where: Path | str, columns: RequestColumns, max_behaviours: int
) -> Requests:
    """Check a table of requests and take its columns apart; ``where`` names it in complaints.

    Raises:
        InputError: missing column, wrong type or unit, null, labels not as long as the candidates
            or outside {0, 1}, weights likewise or below 0, a request without candidates, behaviour
            attributes too long or short.
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
        weights=_weights(table["weights"], where, candidates)
        if columns.has_labels and "weights" in table.column_names
        else None,
        bags={
            name: bag.ids(table[name], f"{where} column {name}")
            for name, bag in columns.bags.items()
        },
        sequences={
            event: lists[column_of(event)].newest(max_behaviours)[0] for event in columns.sequences
        },
    )


def _list_column(column: pa.ChunkedArray, field: str, feature: Feature | None) -> Jagged:
    """The lists of a column; those of a feature as its ids or numbers."""
    if feature is None:
        return Jagged.from_arrow(column, field)
    values, offsets = values_and_offsets(column)
    if isinstance(feature, Numeric):
        return Jagged(feature.values(values, field, offsets), offsets)
    assert isinstance(feature, Categorical)  # bags are as long as they are
    return Jagged(feature.ids(values, field), offsets)


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


def _weights(column: pa.ChunkedArray, where: Path | str, candidates: Jagged) -> np.ndarray:
    """(impressions,) float32; InputError, naming the row, for what can weigh no impression."""
    if column.null_count:
        row = int(np.argmax(in_one(column.is_null()).to_numpy(zero_copy_only=False)))
        raise InputError(f"{where} column weights must not be null, row {row} is")
    values, offsets = values_and_offsets(column)
    check_same_lengths(where, "weights", Jagged(values, offsets), "labels", candidates)
    read = Numeric(WEIGHTS["weights"]).values(values, f"{where} column weights", offsets)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused
        weights = read.astype(np.float32)
    wrong = ~(weights >= 0) | np.isinf(weights)
    if wrong.any():
        place = int(np.argmax(wrong))
        row, value = np.searchsorted(offsets, place, "right") - 1, values[place].as_py()
        rule = f"{where} column weights must be finite and at least 0"
        raise InputError(f"{rule}, row {row} has {'null' if value is None else value}")
    return weights


def check_same_lengths(where: Path | str, name: str, a: Jagged, other: str, b: Jagged) -> None:
    """Refuse two list columns that differ in length in some row: InputError."""
    wrong = a.lengths != b.lengths
    if wrong.any():
        row = int(np.argmax(wrong))
        rule = f"{where} column {name} must be as long as {other}"
        raise InputError(f"{rule}, row {row} has {a.lengths[row]} and {b.lengths[row]}")
