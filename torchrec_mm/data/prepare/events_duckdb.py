"""Event logs on one machine, in bounded memory: DuckDB sorts and spills.

The log is read once: its events of use are kept beside the spilled rows, ids as numbers,
in a Parquet file for each piece of the log. Plain Parquet is read where it lies (plain_parquet.py).
"""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.columns.ahead import in_order
from torchrec_mm.data.logs.file_forms import FormedFile
from torchrec_mm.data.logs.reading import Piece
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.event_counts import EventCounts
from torchrec_mm.data.prepare.event_log import EventLog, typed_events
from torchrec_mm.data.prepare.events import SORTED_BY, requests_of
from torchrec_mm.data.prepare.plain_parquet import (
    COUNTED_SCHEMA,
    count_query,
    events_of_use,
    facts_of_kinds,
    is_plain,
    quoted,
)
from torchrec_mm.data.prepare.request_parts import RequestParts
from torchrec_mm.errors import InputError

BATCH_ROWS = 122_880
DUCKDB_SHARE = 0.4  # of the memory; the rest is Python's: chunks, and rows to be written
THREAD_GB = 0.125  # DuckDB's least memory for a thread
_SECONDS = "CASE WHEN timestamp >= 0 THEN timestamp // $f ELSE -1 - (-(timestamp + 1)) // $f END"


class DuckdbEngine:
    """One event log, sorted by DuckDB.

    Args:
        log: what is read.
        scratch: folder to make, for rows on their way and those that do not fit.
        memory_gb: bound of this process, two fifths of it for DuckDB. All events of one user must
            fit into what is left, about 200 bytes each.
    """

    def __init__(self, log: EventLog, scratch: Path, memory_gb: float) -> None:
        self.log, self.memory_gb = log, memory_gb
        self._scratch, self._read = scratch, scratch / "read"
        self._rows = f"read_parquet({_pattern(self._read)}, hive_partitioning = false)"
        share = memory_gb * DUCKDB_SHARE
        self._database = duckdb.connect(
            config={
                "memory_limit": f"{share}GB",
                "temp_directory": str(scratch / "spill"),
                "threads": max(1, min(len(os.sched_getaffinity(0)), int(share / THREAD_GB))),
                "preserve_insertion_order": False,
            }
        )

    def count_events(self) -> EventCounts:
        """One pass over the log, before anything else; what is asked for later is kept aside."""
        self._read.mkdir(parents=True)
        if is_plain(self.log):
            kinds = pa.Table.from_batches(self._batches(count_query(self.log)), COUNTED_SCHEMA)
            facts = facts_of_kinds(kinds, self.log.rules)
            if facts is not None:
                self._rows = events_of_use(self.log)
                return EventCounts.of([facts], self.log.rules)
        files = (
            self._keep(self._read / f"{number:06}.parquet", *each)
            for number, each in enumerate(self.log.pieces())
        )
        return EventCounts.of(in_order(files), self.log.rules)

    def item_ids(self) -> Iterator[pa.RecordBatch]:
        """item_id, kind: the distinct pairs, by item_id."""
        return self._batches(f"SELECT DISTINCT item_id, kind FROM {self._rows} ORDER BY ALL")

    def texts(self, name: str) -> Iterator[pa.RecordBatch]:
        """MAP_SCHEMA: the distinct ids of a column of text and their texts, in any order."""
        columns = f"{name} AS id, {name}_text AS text"
        return self._batches(f"SELECT DISTINCT {columns} FROM {self._rows}")

    def sorted_events(self, in_a_second: int = 1) -> Iterator[pa.RecordBatch]:
        """EVENT_SCHEMA: events of use, sorted by SORTED_BY; see ``write_requests``."""
        seconds = _SECONDS.replace("$f", str(in_a_second))
        return self._batches(
            f"SELECT user_id, {seconds} AS timestamp, item_id, kind FROM {self._rows} "
            f"ORDER BY {', '.join(SORTED_BY)}"
        )

    def write_requests(self, folder: Path, counts: EventCounts, in_a_second: int) -> None:
        """Write ``folder/train`` and ``folder/test``, by user and time.

        Args:
            folder: may not exist yet.
            counts: of the log.
            in_a_second: units of its times.
        """
        with (
            tqdm(total=counts.used, desc="events", unit="", unit_scale=True) as progress,
            RequestParts(folder / "train") as train,
            RequestParts(folder / "test") as test,
        ):
            for chunk in whole_users(self.sorted_events(in_a_second)):
                for requests in requests_of(chunk, self.log.rules):
                    is_test = requests["is_test"]
                    requests = requests.drop_columns("is_test")
                    train.add(requests.filter(pc.invert(is_test)))
                    test.add(requests.filter(is_test))
                progress.update(chunk.num_rows)

    def close(self) -> None:
        """Give back memory, and what lies in ``scratch``."""
        self._database.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep(self, path: Path, file: FormedFile, piece: Piece) -> Iterator[pa.Table]:
        """Write the rows of a piece; give what is known of them."""
        texts = [f"{name}_text" for name in self.log.text_ids]
        with pq.ParquetWriter(  # of numbers a dictionary costs more time than it saves
            path,
            self.log.schema,
            compression="lz4",
            use_dictionary=texts,
            write_statistics=False,
        ) as writer:
            for events, facts in typed_events(self.log, file, piece):
                writer.write_table(events)
                yield facts

    def _batches(self, query: str) -> Iterator[pa.RecordBatch]:
        with self._named_errors():
            with self._database.cursor() as cursor:  # of its own, as others may be half read
                yield from cursor.sql(query).to_arrow_reader(BATCH_ROWS)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            if "max_temp_directory_size" in str(error):  # which DuckDB sets to what the disk has
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(self._scratch)) from error
            raise InputError(f"memory_gb must be more, got {self.memory_gb}: {error}") from error
        except duckdb.Error as error:  # garbled Parquet has no class of its own
            raise InputError(f"{self.log.folder} could not be read: {error}") from error
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # DuckDB's word for Ctrl-C
                raise KeyboardInterrupt from error
            raise


def _pattern(folder: Path) -> str:
    """All Parquet files of a folder, as SQL; ``[`` and ``*`` in its path would be wildcards."""
    return quoted(f"{glob.escape(str(folder))}/*.parquet", "'")
