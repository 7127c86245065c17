"""Requests as they were served, labelled by what came of them.

A candidate has label 1 if an outcome says so of its request and item, an event at most ``wait_s``
after the request was served; all others have 0. A request that was asked again, by the same id,
counts once, as it was answered last.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.parquet import INT8_LIST
from torchrec_mm.data.contract.request_columns import REQUEST_ID
from torchrec_mm.data.contract.served import SERVED_AT
from torchrec_mm.data.public.tables import Tables, listed
from torchrec_mm.data.served.log_files import ServedLog
from torchrec_mm.data.served.outcomes import Outcomes
from torchrec_mm.errors import InputError

ROWS = 2_048  # of requests at a time, which may be long
PLACE = "log_file, log_row"


class Labeller:
    """Joins the ripe files of a log, at least one, with outcomes, in DuckDB's bounded memory."""

    def __init__(self, log: ServedLog, outcomes: Outcomes, wait_s: int, tables: Tables) -> None:
        """Find out which answers count, and what was clicked.

        Raises:
            InputError: outcomes that contradict each other, or of which none is of the log.
        """
        self.log, self.outcomes, self.wait_s, self.tables = log, outcomes, wait_s, tables
        self._ripe = _rows_of(log.ripe)
        self._check()
        tables.keep(
            "answers",
            f"SELECT {REQUEST_ID}, {SERVED_AT}, {PLACE} FROM {self._ripe} QUALIFY "
            f"row_number() OVER (PARTITION BY {REQUEST_ID} ORDER BY {SERVED_AT} DESC, "
            "log_file DESC, log_row DESC) = 1",
        )
        tables.keep(
            "clicks",
            f"SELECT {REQUEST_ID}, list(DISTINCT item_id) AS items FROM {self._judged} "
            f"WHERE label = 1 AND NOT is_late GROUP BY {REQUEST_ID}",
        )

    @property
    def schema(self) -> pa.Schema:
        """Of the requests: the log's columns but for the server's, and labels."""
        names = self.log.columns
        types = {name: self.log.schema.field(name).type for name in names}
        return pa.schema(types | {"labels": INT8_LIST})

    def requests(self) -> Iterator[pa.Table]:
        """All of them, each once, by time."""
        columns = ", ".join(f'r."{name}"' for name in self.log.columns)
        labels = (
            "list_transform(r.candidate_item_ids, lambda item: "
            "CAST(list_contains(coalesce(c.items, CAST([] AS BIGINT[])), item) AS TINYINT))"
        )
        query = (
            f"SELECT {columns}, {labels} AS labels FROM {self._ripe} r "
            f"JOIN answers a USING ({PLACE}) LEFT JOIN clicks c ON r.{REQUEST_ID} = c.{REQUEST_ID} "
            f'ORDER BY r."timestamp", r.{REQUEST_ID}'
        )
        for batch in self.tables(query, ROWS):
            yield pa.Table.from_batches([batch]).cast(self.schema)

    def first_of_test(self, share: float) -> int:
        """The timestamp after which about a share of the requests came."""
        query = f'SELECT quantile_disc("timestamp", {1 - share}) FROM {self._ripe}'
        return int(self.tables.row(query)[0])

    def times(self) -> tuple[int, int]:
        """The first and the last timestamp."""
        first, last = self.tables.row(
            f'SELECT min("timestamp"), max("timestamp") FROM {self._ripe}'
        )
        return int(first), int(last)

    def item_ids(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """The distinct ids in lists of the requests, ascending."""
        each = " UNION ".join(
            f'SELECT unnest("{name}") AS item_id FROM {self._ripe}' for name in columns
        )
        return self.tables(f"SELECT DISTINCT item_id FROM ({each}) ORDER BY item_id")

    def notes(self) -> Iterator[str]:
        """A line on each thing that was left out."""
        answers, requests = self.tables.row(
            f"SELECT count(*), (SELECT count(*) FROM answers) FROM {self._ripe}"
        )
        if answers > requests:
            yield f"{answers - requests} of {answers} answers are to requests that were asked again"
        for count, said in (
            (self._repeated(), "repeat another, and count once"),
            (self._without(self._all), "are of requests that the log does not hold"),
            (self._earlier(), "are of requests that were labelled before, and change nothing"),
            (self._of_no_candidate(), "are of items that were no candidates of their requests"),
            (self._late(), f"came more than wait_s = {self.wait_s} seconds after their requests"),
        ):
            if count:
                yield f"{count} of {self.outcomes.rows} outcomes {said}"

    @property
    def _given(self) -> str:
        return f"read_parquet({listed([self.outcomes.file])})"

    @property
    def _all(self) -> str:
        return _rows_of((*self.log.ripe, *self.log.young, *self.log.done))

    @property
    def _judged(self) -> str:
        """Outcomes of the answers that count, and whether they came too late for a label."""
        seconds = f'"timestamp" // {self.outcomes.in_a_second}'
        late = f"coalesce({seconds} > {SERVED_AT} + {self.wait_s}, false)"
        return (
            f"(SELECT o.*, {PLACE}, {late} AS is_late FROM {self._given} o "
            f"JOIN answers USING ({REQUEST_ID}))"
        )

    def _check(self) -> None:
        rows, folder = self.outcomes.rows, self.outcomes.folder
        if rows and self._without(self._all) == rows:
            rule = f"{folder} column {REQUEST_ID} must name requests of {self.log.folder}"
            raise InputError(f"{rule}, got none that it holds in {rows} rows")
        both = self.tables(
            f"SELECT {REQUEST_ID}, item_id FROM {self._given} GROUP BY ALL "
            "HAVING min(label) < max(label) ORDER BY ALL LIMIT 1"
        )
        for batch in both:
            for row in batch.to_pylist():
                rule = f"{folder} column label must be one for each request and item"
                raise InputError(f"{rule}, got 0 and 1 for {row[REQUEST_ID]} and {row['item_id']}")

    def _without(self, rows: str) -> int:
        """Outcomes of none of the requests."""
        return self._count(f"{self._given} ANTI JOIN {rows} USING ({REQUEST_ID})")

    def _earlier(self) -> int:
        if not self.log.done:
            return 0
        done = _rows_of(self.log.done)
        return self._count(f"{self._given} SEMI JOIN {done} USING ({REQUEST_ID})")

    def _repeated(self) -> int:
        return self.outcomes.rows - self._count(f"(SELECT DISTINCT * FROM {self._given})")

    def _of_no_candidate(self) -> int:
        shown = f"(SELECT candidate_item_ids, {PLACE} FROM {self._ripe})"
        of_item = "NOT list_contains(candidate_item_ids, item_id)"
        return self._count(f"{self._judged} JOIN {shown} USING ({PLACE}) WHERE {of_item}")

    def _late(self) -> int:
        return self._count(f"{self._judged} WHERE is_late")

    def _count(self, rows: str) -> int:
        return int(self.tables.row(f"SELECT count(*) FROM {rows}")[0])


def _rows_of(files: Sequence[Path]) -> str:
    """SQL: rows of files, and where each is."""
    options = "union_by_name = true, hive_partitioning = false, filename = true"
    places = "filename AS log_file, file_row_number AS log_row"
    rows = f"read_parquet({listed([*files])}, {options}, file_row_number = true)"
    return f"(SELECT * RENAME ({places}) FROM {rows})"
