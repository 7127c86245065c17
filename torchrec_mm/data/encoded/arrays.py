"""Requests and items of an encoded data set in memory.

Shape letters: U items, F item tables, n requests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from torchrec_mm.columns.jagged import Jagged

Chosen: TypeAlias = np.ndarray | slice  # what an array is indexed with


@dataclass(frozen=True)
class EncodedItems:
    """What the requests' item numbers mean; all arrays memory-mapped.

    item_ids: (U,) int64, strictly ascending. rows: (F, U) int32 table rows, in the order of
    ``features``. created_at: (U,) int64 seconds, or None. numbers: (U, G) float32 of the numeric
    attributes, NaN for null, or None. bags: U lists of int32 table rows by name.
    """

    features: tuple[str, ...]
    item_ids: np.ndarray
    rows: np.ndarray
    created_at: np.ndarray | None
    numbers: np.ndarray | None = None
    bags: Mapping[str, Jagged] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestArrays:
    """Some requests in memory, columns as flat arrays.

    rows: (n,) int64, their numbers in the data set. user_ids: (n,) int64.
    timestamps: (n,) int64 seconds, or None. request_rows: (n,) int32 table rows by feature.
    candidates, behaviours: item numbers in [0, U), int32. labels: int8, as the candidates' values.
    behaviour_rows: int32 table rows by behaviour feature, aligned with ``behaviours.values``.
    impression_rows: likewise, aligned with ``candidates.values``.
    request_numbers: (n, P) float32 of users and contexts, NaN for null, or None.
    impression_numbers: (impressions, Q) float32, likewise.
    weights: (impressions,) float32, finite, >= 0, or None: all alike.
    request_bags: n lists of int32 table rows by name.
    sequences: further behaviours by event, as ``behaviours``.
    """

    rows: np.ndarray
    user_ids: np.ndarray
    timestamps: np.ndarray | None
    request_rows: Mapping[str, np.ndarray]
    candidates: Jagged
    labels: np.ndarray
    behaviours: Jagged
    behaviour_rows: Mapping[str, np.ndarray]
    impression_rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    request_numbers: np.ndarray | None = None
    impression_numbers: np.ndarray | None = None
    weights: np.ndarray | None = None
    request_bags: Mapping[str, Jagged] = field(default_factory=dict)
    sequences: Mapping[str, Jagged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> "RequestArrays":
        """The requests at positions ``chosen``, in that order."""
        return self._part(chosen, lambda lists: lists.take(chosen))

    def slice(self, begin: int, end: int) -> "RequestArrays":
        """The requests [begin, end); their values are not copied."""
        return self._part(slice(begin, end), lambda lists: lists.slice(begin, end))

    def _part(
        self, chosen: Chosen, of_lists: Callable[[Jagged], tuple[Jagged, Chosen]]
    ) -> "RequestArrays":
        """The requests ``chosen``. ``of_lists``: their lists, and where the values of these lie."""
        candidates, at_candidates = of_lists(self.candidates)
        behaviours, at_behaviours = of_lists(self.behaviours)
        return RequestArrays(
            self.rows[chosen],
            self.user_ids[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
            {name: rows[chosen] for name, rows in self.request_rows.items()},
            candidates,
            self.labels[at_candidates],
            behaviours,
            {name: rows[at_behaviours] for name, rows in self.behaviour_rows.items()},
            {name: rows[at_candidates] for name, rows in self.impression_rows.items()},
            None if self.request_numbers is None else self.request_numbers[chosen],
            None if self.impression_numbers is None else self.impression_numbers[at_candidates],
            None if self.weights is None else self.weights[at_candidates],
            {name: of_lists(bags)[0] for name, bags in self.request_bags.items()},
            {event: of_lists(items)[0] for event, items in self.sequences.items()},
        )

    def cut(self, first: int, end: int) -> "RequestArrays":
        """A lone request with its candidates [first, end) and no others."""
        numbers = self.impression_numbers
        return replace(
            self,
            candidates=Jagged(self.candidates.values[first:end], np.array([0, end - first])),
            labels=self.labels[first:end],
            impression_rows={n: rows[first:end] for n, rows in self.impression_rows.items()},
            impression_numbers=None if numbers is None else numbers[first:end],
            weights=None if self.weights is None else self.weights[first:end],
        )

    def without_candidates(self) -> "RequestArrays":
        """The same requests, nothing to score in them."""
        candidates = Jagged(self.candidates.values[:0], np.zeros_like(self.candidates.offsets))
        numbers = None if self.impression_numbers is None else self.impression_numbers[:0]
        return replace(
            self,
            candidates=candidates,
            labels=self.labels[:0],
            impression_rows={name: rows[:0] for name, rows in self.impression_rows.items()},
            impression_numbers=numbers,
            weights=None if self.weights is None else self.weights[:0],
        )

    @classmethod
    def concatenate(cls, parts: "list[RequestArrays]") -> "RequestArrays":
        """All of them, one after another; at least one part."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.user_ids for part in parts]),
            None
            if first.timestamps is None
            else np.concatenate([part.timestamps for part in parts]),
            {n: np.concatenate([p.request_rows[n] for p in parts]) for n in first.request_rows},
            Jagged.concatenate([part.candidates for part in parts]),
            np.concatenate([part.labels for part in parts]),
            Jagged.concatenate([part.behaviours for part in parts]),
            {n: np.concatenate([p.behaviour_rows[n] for p in parts]) for n in first.behaviour_rows},
            {
                n: np.concatenate([p.impression_rows[n] for p in parts])
                for n in first.impression_rows
            },
            None
            if first.request_numbers is None
            else np.concatenate([part.request_numbers for part in parts]),
            None
            if first.impression_numbers is None
            else np.concatenate([part.impression_numbers for part in parts]),
            None if first.weights is None else np.concatenate([part.weights for part in parts]),
            {
                name: Jagged.concatenate([part.request_bags[name] for part in parts])
                for name in first.request_bags
            },
            {e: Jagged.concatenate([p.sequences[e] for p in parts]) for e in first.sequences},
        )
