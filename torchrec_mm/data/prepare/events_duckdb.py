"""Event logs on one machine, in bounded memory: DuckDB reads, sorts and spills."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.event_counts import KINDS_SCHEMA, MAX_KINDS, EventCounts
from torchrec_mm.data.prepare.event_log import COLUMNS, NUMBERS, WHOLE_NUMBER, LogFiles
from torchrec_mm.data.prepare.events import SORTED_BY, EventRules, requests_of
from torchrec_mm.data.prepare.request_parts import RequestParts
from torchrec_mm.errors import InputError

BATCH_ROWS = 122_880
DUCKDB_SHARE = 0.4  # of the memory; the rest is Python's: chunks, and rows to be written
THREAD_GB = 0.125  # DuckDB's least memory for a thread
_SQL = {INT64: "BIGINT", STRING: "VARCHAR"}
# Columns come from the files alone: DuckDB would take those of folders called user_id=3 as well.
_AS_IT_IS = "hive_partitioning = false, union_by_name = false, filename = false"


class DuckdbEngine:
    """One event log, read by DuckDB.

    Args:
        folder: of the log, for messages. log: its files. rules: which events count.
        spill: folder for what does not fit.
        memory_gb: bound of this process, two fifths of it for DuckDB. All events of one user must
            fit into what is left, about 200 bytes each.
    """

    def __init__(
        self, folder: Path, log: list[LogFiles], rules: EventRules, spill: Path, memory_gb: float
    ) -> None:
        self.folder, self.rules, self.memory_gb = folder, rules, memory_gb
        self._spill = spill
        self._kinds = {"shown": rules.shown_event, "clicked": rules.clicked_event}
        selects = [_select(files, index) for index, files in enumerate(log)]
        self._source = "(" + " UNION ALL ".join(selects) + ")"
        self._files = {f"files_{index}": _patterns(files) for index, files in enumerate(log)}
        share = memory_gb * DUCKDB_SHARE
        self._database = duckdb.connect(
            config={
                "memory_limit": f"{share}GB",
                "temp_directory": str(self._spill),
                "threads": max(1, min(len(os.sched_getaffinity(0)), int(share / THREAD_GB))),
                "preserve_insertion_order": False,
            }
        )

    def count_events(self) -> EventCounts:
        """One pass over the log."""
        counts = ", ".join(f"count({name}) AS {name}" for name in NUMBERS)
        kinds = self._batches(
            f"SELECT event, count(*) AS events, {counts}, min(timestamp) AS first, "
            f"max(timestamp) AS last FROM {self._source} GROUP BY event LIMIT {MAX_KINDS + 1}",
            {},
        )
        return EventCounts.of(pa.Table.from_batches(kinds, KINDS_SCHEMA), self.rules)

    def item_ids(self, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """item_id: the distinct items of these kinds of events, ascending."""
        return self._batches(
            f"SELECT DISTINCT item_id FROM {self._source} WHERE list_contains($kinds, event) "
            "ORDER BY item_id",
            {"kinds": list(kinds)},
        )

    def sorted_events(self) -> Iterator[pa.RecordBatch]:
        """EVENT_SCHEMA: impressions and clicks, sorted by SORTED_BY."""
        return self._batches(
            f"SELECT user_id, timestamp, item_id, event = $clicked AS is_click "
            f"FROM {self._source} WHERE event IN ($shown, $clicked) "
            f"ORDER BY {', '.join(SORTED_BY)}",
            self._kinds,
        )

    def write_requests(self, folder: Path, events: int) -> None:
        """Write ``folder/train`` and ``folder/test``, by user and time.

        Args:
            folder: may not exist yet.
            events: how many impressions and clicks there are, for the progress bar.
        """
        with (
            tqdm(total=events, desc="events", unit="", unit_scale=True) as progress,
            RequestParts(folder / "train") as train,
            RequestParts(folder / "test") as test,
        ):
            for chunk in whole_users(self.sorted_events()):
                for requests in requests_of(chunk, self.rules):
                    is_test = requests["is_test"]
                    requests = requests.drop_columns("is_test")
                    train.add(requests.filter(pc.invert(is_test)))
                    test.add(requests.filter(is_test))
                progress.update(chunk.num_rows)

    def close(self) -> None:
        """Give back memory and spilled rows."""
        self._database.close()

    def _batches(self, query: str, values: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        with self._named_errors():
            result = self._database.sql(query, params=self._files | values)
            yield from result.to_arrow_reader(BATCH_ROWS)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            if "max_temp_directory_size" in str(error):  # which DuckDB sets to what the disk has
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(self._spill)) from error
            raise InputError(f"memory_gb must be more, got {self.memory_gb}: {error}") from error
        except duckdb.Error as error:  # garbled Parquet has no class of its own
            raise InputError(f"{self.folder} could not be read: {error}") from error
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # DuckDB's word for Ctrl-C
                raise KeyboardInterrupt from error
            raise


def _select(files: LogFiles, index: int) -> str:
    """COLUMNS of some files, null where a value is not of its column's type."""
    if files.places is None:
        casts = (f"TRY_CAST({name} AS {_SQL[kind]}) AS {name}" for name, kind in COLUMNS.items())
        columns = ", ".join(casts)
        return f"SELECT {columns} FROM read_parquet($files_{index}, {_AS_IT_IS})"
    fields = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(files.width))
    columns = ", ".join(_csv_column(name, f"c{at}") for name, at in files.places.items())
    return (
        f"SELECT {columns} FROM read_csv($files_{index}, auto_detect = false, header = true, "
        f"delim = ',', quote = '\"', escape = '\"', compression = 'none', "
        f"columns = {{{fields}}}, {_AS_IT_IS})"
    )


def _csv_column(name: str, field: str) -> str:
    if name == "event":
        return f"coalesce({field}, '') AS event"
    return (
        f"CASE WHEN regexp_matches({field}, '{WHOLE_NUMBER}') "
        f"THEN TRY_CAST({field} AS BIGINT) END AS {name}"
    )


def _patterns(files: LogFiles) -> list[str]:
    """Paths for DuckDB, to which ``[`` and ``*`` in a path would be wildcards."""
    return [glob.escape(str(file)) for file in files.files]
