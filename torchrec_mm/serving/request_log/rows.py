"""What was answered, and as which rows it is kept.

Shape letters: R requests of one body, I impressions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, list_array, offsets_of, values_and_offsets
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.columns.parquet import FLOAT64, INT64, STRING
from torchrec_mm.data.contract.request_columns import REQUEST_ID, RequestColumns
from torchrec_mm.data.contract.served import OF_SERVER, SERVED, SERVED_AT, SERVED_BY
from torchrec_mm.errors import InputError
from torchrec_mm.serving.histories import of_behaviours


@dataclass(frozen=True)
class Answered:
    """R requests of one body, and what was answered.

    table: as they were asked, with the behaviours that they were scored by. request_ids: R of them.
    probabilities: (I,) float32, request after request. checkpoint: by which. served_at: Unix
    seconds.
    """

    table: pa.Table
    request_ids: list[str]
    probabilities: np.ndarray
    checkpoint: str
    served_at: float

    @property
    def nbytes(self) -> int:
        """Of memory, without what Python needs besides."""
        return int(self.table.nbytes) + self.probabilities.nbytes

    def take(self, rows: Sequence[int]) -> "Answered":
        """Some of the requests."""
        lengths = np.asarray(self.table["candidate_item_ids"].combine_chunks().value_lengths())
        each = Jagged(self.probabilities, offsets_of(lengths))
        table = self.table.take(pa.array(rows, INT64))
        ids = [self.request_ids[row] for row in rows]
        probabilities = each.take(np.array(rows, np.int64))[0].values
        return replace(self, table=table, request_ids=ids, probabilities=probabilities)


class LogRows:
    """Makes rows of one schema of whatever types the requests of one ranker came in.

    schema: of the rows: request_id, the columns of the ranker, and ``OF_SERVER``.
    """

    def __init__(self, columns: RequestColumns, max_behaviours: int) -> None:
        """``columns``: of a ranker. ``max_behaviours``: the newest that it reads.

        Raises:
            InputError: the ranker has a feature that is called as a column of the log.
        """
        of_ranker = {**columns.required, **columns.nullable}
        if taken := of_ranker.keys() & OF_SERVER.keys():
            rule = f"log must be of a ranker without features called {', '.join(OF_SERVER)}"
            raise InputError(f"{rule}, got {min(taken)}")
        self.schema = pa.schema({REQUEST_ID: STRING, **of_ranker, **OF_SERVER})
        self._of_behaviours, self._most = [*of_behaviours(columns)], max_behaviours

    def __call__(self, answered: Answered) -> pa.Table:
        """R rows; the timestamp of a request that brings none is when it was answered."""
        table, count = answered.table, answered.table.num_rows
        served_at = int(answered.served_at)
        lengths = table["candidate_item_ids"].combine_chunks().value_lengths()
        columns = {name: table[name] for name in table.column_names} | {
            REQUEST_ID: pa.chunked_array([answered.request_ids], STRING),
            "timestamp": table["timestamp"].cast(INT64).fill_null(served_at),
            SERVED_AT: pa.chunked_array([[served_at] * count], INT64),
            SERVED_BY: pa.chunked_array([[answered.checkpoint] * count], STRING),
            SERVED: pa.chunked_array([list_array(answered.probabilities, np.asarray(lengths))]),
        }
        for name in self._of_behaviours:
            columns[name] = self._newest(columns[name])
        arrays = [_cast(columns[field.name], field.type) for field in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _newest(self, lists: pa.ChunkedArray) -> pa.ChunkedArray:
        """Those that the ranker reads."""
        values, offsets = values_and_offsets(lists)
        kept, places = Jagged(np.arange(len(values)), offsets).newest(self._most)
        cut = to_arrow(offsets_of(kept.lengths).astype(np.int32))
        return pa.chunked_array([pa.ListArray.from_arrays(cut, values.take(pa.array(places)))])


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Values that were accepted, in their column's own type; large integers may be numbers."""
    each = kind.value_type if pa.types.is_list(kind) else kind
    return column.cast(kind, safe=each != FLOAT64)
