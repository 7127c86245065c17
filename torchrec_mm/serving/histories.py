"""Behaviours of users whose requests bring none.

Shape letters: U users, R requests.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import INT64, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.request_columns import RequestColumns, column_of
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.ids import sort_unique

BEHAVIOURS = "behaviour_item_ids"


def of_behaviours(columns: RequestColumns) -> dict[str, pa.DataType]:
    """The columns that a history consists of: behaviours, their attributes, further sequences."""
    names = {BEHAVIOURS, *columns.behaviour_attributes, *map(column_of, columns.sequences)}
    return {name: kind for name, kind in columns.lists.items() if name in names}


@dataclass(frozen=True)
class Histories:
    """Histories by user, in memory.

    users: where each is. lists: U rows by column, and after them empty lists.
    """

    users: HashIndex
    lists: dict[str, pa.Array]

    @classmethod
    def none(cls, columns: RequestColumns) -> "Histories":
        """Of no user."""
        empty = {name: pa.array([[]], kind) for name, kind in of_behaviours(columns).items()}
        return cls(HashIndex(), empty)

    @classmethod
    def open(cls, folder: Path, columns: RequestColumns) -> "Histories":
        """Read Parquet files, a row a user, with ``user_id`` and the columns of behaviours.

        Raises:
            InputError: a column that is missing or of another type, a null, a user twice.
        """
        types = of_behaviours(columns)
        table = ParquetFolder(folder).read({USER_ID: INT64, **types})
        users = to_numpy(table[USER_ID])
        sort_unique(users, f"{folder} column {USER_ID}")
        lists = {
            name: pa.concat_arrays([in_one(table[name]), pa.array([[]], kind)])
            for name, kind in types.items()
        }
        return cls(HashIndex(users), lists)

    def fill(self, table: pa.Table) -> pa.Table:
        """Requests with the histories of those users whose requests bring none.

        A request brings its own if ``behaviour_item_ids`` is not null; then what else of it is
        null, or not there, is empty. Users without a history have an empty one.

        Raises:
            InputError: no ``user_id``, or a column of another type.
        """
        types = {name: lists.type for name, lists in self.lists.items()}
        table = check_columns(table, "requests", {USER_ID: INT64}, types)
        count = table.num_rows
        if BEHAVIOURS in table.column_names:
            own = _is_brought(in_one(table[BEHAVIOURS]))
        else:
            own = np.zeros(count, bool)
        place = self.users.rows(to_numpy(table[USER_ID]))
        nobody = len(self.users)
        place = np.where(own | (place < 0), nobody, place)
        for name, lists in self.lists.items():
            theirs = lists.take(pa.array(place))
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


def _is_brought(lists: pa.Array) -> np.ndarray:
    """(R,) bool, where a list is not null."""
    return lists.is_valid().to_numpy(zero_copy_only=False)
