"""Behaviours of users whose requests bring none.

Shape letters: U users, R requests.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import INT64, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.contract.request_columns import RequestColumns, column_of
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.ids import sort_unique

BEHAVIOURS, TIMESTAMP = "behaviour_item_ids", "timestamp"
LONG_AGO, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def of_behaviours(columns: RequestColumns) -> dict[str, pa.DataType]:
    """The columns that a history consists of: behaviours, their attributes, further sequences."""
    names = {BEHAVIOURS, *columns.behaviour_attributes, *map(column_of, columns.sequences)}
    return {name: kind for name, kind in columns.lists.items() if name in names}


class Later(Protocol):
    """What came since, see ``AddedLists``."""

    def join(
        self, lists: dict[str, pa.Array], users: np.ndarray, after: np.ndarray, before: np.ndarray
    ) -> dict[str, pa.Array]:
        """R lists by column, and behind them what came between two moments, (R,) int64."""


@dataclass(frozen=True)
class Histories:
    """Histories by user, in memory.

    users: where each is. lists: U rows by column, and after them empty lists. until: (U + 1,) int64
    seconds that each is whole to. later: what came after these; None: nothing does.
    """

    users: HashIndex
    lists: dict[str, pa.Array]
    until: np.ndarray
    later: Later | None = None

    @classmethod
    def none(cls, columns: RequestColumns, later: Later | None = None) -> "Histories":
        """Of no user, but for what came later."""
        empty = {name: pa.array([[]], kind) for name, kind in of_behaviours(columns).items()}
        return cls(HashIndex(), empty, np.array([LONG_AGO]), later)

    @classmethod
    def open(cls, folder: Path, columns: RequestColumns, later: Later | None = None) -> "Histories":
        """Read Parquet files, a row a user, with ``user_id`` and the columns of behaviours.

        ``timestamp``, where there is one, says until when a history is whole: what came later, and
        is not after it, is in it already.

        Raises:
            InputError: a column that is missing or of another type, a null, a user twice.
        """
        types = of_behaviours(columns)
        table = ParquetFolder(folder).read({USER_ID: INT64, **types}, {TIMESTAMP: INT64})
        users = to_numpy(table[USER_ID])
        sort_unique(users, f"{folder} column {USER_ID}")
        lists = {
            name: pa.concat_arrays([in_one(table[name]), pa.array([[]], kind)])
            for name, kind in types.items()
        }
        until = np.full(len(users) + 1, LONG_AGO)
        if TIMESTAMP in table.column_names:
            check_seconds(folder, TIMESTAMP, table[TIMESTAMP])
            until[:-1] = to_numpy(pc.fill_null(table[TIMESTAMP], LONG_AGO))
        return cls(HashIndex(users), lists, until, later)

    def fill(self, table: pa.Table) -> pa.Table:
        """Requests with the histories of those users whose requests bring none.

        A request brings its own if ``behaviour_item_ids`` is not null; then what else of it is
        null, or not there, is empty. Users without a history have an empty one. What came later
        counts if it was before the request, which without a timestamp is now.

        Raises:
            InputError: no ``user_id``, or a column of another type.
        """
        types = {name: lists.type for name, lists in self.lists.items()}
        table = check_columns(table, "requests", {USER_ID: INT64}, types | {TIMESTAMP: INT64})
        count = table.num_rows
        if BEHAVIOURS in table.column_names:
            own = _is_brought(in_one(table[BEHAVIOURS]))
        else:
            own = np.zeros(count, bool)
        users = to_numpy(table[USER_ID])
        place = self.users.rows(users)
        nobody = len(self.users)
        place = np.where(own | (place < 0), nobody, place)
        of_users = {name: lists.take(pa.array(place)) for name, lists in self.lists.items()}
        if self.later is not None and not own.all():
            before = np.where(own, LONG_AGO, _times(table))
            of_users = self.later.join(of_users, users, self.until[place], before)
        for name, theirs in of_users.items():
            if name in table.column_names:
                brought = in_one(table[name])
                is_kept = own & _is_brought(brought)
                both = pa.concat_arrays([brought, theirs])
                row = np.arange(count)
                column = both.take(pa.array(np.where(is_kept, row, count + row)))
                table = table.set_column(table.column_names.index(name), name, column)
            else:
                table = table.append_column(name, theirs)
        return table


def _times(table: pa.Table) -> np.ndarray:
    """(R,) int64, of requests; where they bring none, a time that never comes."""
    if TIMESTAMP not in table.column_names:
        return np.full(table.num_rows, NEVER)
    return to_numpy(pc.fill_null(in_one(table[TIMESTAMP]), NEVER))


def _is_brought(lists: pa.Array) -> np.ndarray:
    """(R,) bool, where a list is not null."""
    return lists.is_valid().to_numpy(zero_copy_only=False)
