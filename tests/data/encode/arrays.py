"""Encoded requests from plain lists, without a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.data.encoded.checks import weight_sums
from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays, RowGroup


def jagged32(lists: list[list[int]]) -> Jagged:
    values = np.array([value for values in lists for value in values], dtype=np.int32)
    return Jagged(values, offsets_of(np.array([len(values) for values in lists], dtype=np.int64)))


def arrays_of(
    behaviours: list[list[int]],
    candidates: list[list[int]],
    labels: list[list[int]] | None = None,
    request_rows: dict[str, list[int]] | None = None,
    behaviour_rows: dict[str, list[list[int]]] | None = None,
    weights: list[float] | None = None,
) -> RequestArrays:
    """Requests by item number; the first candidate is clicked unless given."""
    labels = labels or [[int(i == 0) for i in range(len(ids))] for ids in candidates]
    return RequestArrays(
        rows=np.arange(len(candidates)),
        user_ids=np.arange(len(candidates)),
        timestamps=None,
        request_rows={n: np.array(r, dtype=np.int32) for n, r in (request_rows or {}).items()},
        candidates=jagged32(candidates),
        labels=jagged32(labels).values.astype(np.int8),
        behaviours=jagged32(behaviours),
        behaviour_rows={n: jagged32(lists).values for n, lists in (behaviour_rows or {}).items()},
        weights=None if weights is None else np.array(weights, dtype=np.float32),
    )


def items_of(item_ids: list[int], **rows: list[int]) -> EncodedItems:
    """Items with their table rows by feature."""
    table = np.array(list(rows.values()), dtype=np.int32).reshape(len(rows), len(item_ids))
    return EncodedItems(tuple(rows), np.array(item_ids), table, None)


@dataclass(frozen=True)
class InMemory:
    """Stands for ``EncodedRequests``: the requests of ``arrays`` in row groups of one size.

    read_groups: the groups that were read, by number of their first request.
    """

    arrays: RequestArrays
    items: EncodedItems
    group_size: int
    read_groups: list[int]

    @property
    def groups(self) -> list[RowGroup]:
        starts = range(0, len(self.arrays), self.group_size)
        return [
            RowGroup(Path("part"), i, first, min(self.group_size, len(self.arrays) - first))
            for i, first in enumerate(starts)
        ]

    @property
    def weight_sums(self) -> np.ndarray | None:
        if self.arrays.weights is None:
            return None
        return weight_sums(self.arrays.weights, self.arrays.labels, self.arrays.candidates)

    @property
    def click_rate(self) -> float:
        return float(np.average(self.arrays.labels, weights=self.arrays.weights))

    @property
    def group_starts(self) -> np.ndarray:
        return np.array([group.first for group in self.groups])

    @property
    def lengths(self) -> np.ndarray:
        both = (self.arrays.candidates.lengths, self.arrays.behaviours.lengths)
        return np.stack(both, axis=1).astype(np.int32)

    def read(self, group: RowGroup) -> RequestArrays:
        self.read_groups.append(group.first)
        return self.arrays.take(np.arange(group.first, group.first + group.num_requests))
