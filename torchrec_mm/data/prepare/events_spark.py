"""Event logs that outgrow one machine: Spark reads, brings users together and writes.

Spark takes master, memory and the rest from its own configuration (spark-submit,
spark-defaults.conf, SPARK_CONF_DIR); without any it runs on this machine. Input and output folders
must be reachable from every executor, and this package must be installed there.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.parquet import BOOL, INT8, INT8_LIST, INT64, INT64_LIST, STRING
from torchrec_mm.columns.text_ids import MAP_SCHEMA
from torchrec_mm.data.logs.file_forms import FormedFile
from torchrec_mm.data.logs.reading import Piece
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.event_counts import FACTS_SCHEMA, EventCounts
from torchrec_mm.data.prepare.event_log import EventLog, typed_events
from torchrec_mm.data.prepare.events import SORTED_BY, EventRules, requests_of
from torchrec_mm.data.prepare.request_parts import GROUP_ROWS
from torchrec_mm.errors import InputError

try:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F
except ImportError as error:
    raise InputError(f"engine spark needs pip install 'pyspark[sql]>=4.1,<5': {error}") from error

TASKS_A_CORE = 4  # a task costs a moment of its own, and the last ones wait for each other
OfPiece = Callable[[EventLog, FormedFile, Piece], Iterator[pa.Table]]
_SQL = {
    INT8: "tinyint",
    INT64: "bigint",
    STRING: "string",
    BOOL: "boolean",
    INT8_LIST: "array<tinyint>",
    INT64_LIST: "array<bigint>",
}


class SparkEngine:
    """One event log, read and sorted by Spark, whose tasks are its pieces.

    Args:
        log: what is read.

    Raises:
        InputError: Spark does not start.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        self._is_ours = SparkSession.getActiveSession() is None
        try:
            builder = SparkSession.builder.appName("torchrec_mm.prepare")
            self._spark = builder.config("spark.sql.caseSensitive", "true").getOrCreate()
        except PySparkException as error:
            raise InputError(f"engine spark needs Java, 17 or newer: {error}") from error
        self._pieces = log.pieces()

    def count_events(self) -> EventCounts:
        """One pass over the log."""
        with self._named_errors():
            facts = self._read(_facts, FACTS_SCHEMA).toArrow()
        return EventCounts.of([facts], self.log.rules)

    def item_ids(self) -> Iterator[pa.RecordBatch]:
        """item_id, kind: the distinct pairs, by item_id; all in the driver."""
        pairs = self._events(1).select("item_id", "kind").distinct()
        yield from pairs.sort("item_id").toArrow().to_batches()

    def texts(self, name: str) -> Iterator[pa.RecordBatch]:
        """MAP_SCHEMA: the distinct ids of a column of text and their texts; all in the driver."""
        columns = F.col(name).alias("id"), F.col(f"{name}_text").alias("text")
        texts = self._events(1).select(*columns).distinct()
        yield from texts.toArrow().cast(MAP_SCHEMA).to_batches()

    def write_requests(self, folder: Path, counts: EventCounts, in_a_second: int) -> None:
        """Write ``folder/train`` and ``folder/test``, users in any order.

        Args:
            folder: may not exist yet.
            counts: of the log; Spark shows progress its own way.
            in_a_second: units of its times.
        """
        rules = self.log.rules
        requests = (
            self._events(in_a_second)
            .select(*SORTED_BY)
            .repartition("user_id")
            .sortWithinPartitions(*SORTED_BY)
            .mapInArrow(partial(_requests_of_partition, rules=rules), _ddl(rules.request_schema))
        )
        aside = folder / "by_split"
        by_split = requests.write.partitionBy("is_test").option("compression", "zstd")
        by_split.option("parquet.block.row.count.limit", GROUP_ROWS).parquet(_uri(aside))
        for split, is_test in (("train", "false"), ("test", "true")):
            (folder / split).mkdir()
            for number, file in enumerate(sorted(aside.glob(f"is_test={is_test}/*.parquet"))):
                file.rename(folder / split / f"part-{number:04d}.parquet")
        shutil.rmtree(aside)

    def close(self) -> None:
        """Stop Spark, if it was started for this."""
        if self._is_ours:
            self._spark.stop()

    def _events(self, in_a_second: int) -> DataFrame:
        return self._read(partial(_events, in_a_second=in_a_second), self.log.schema)

    def _read(
        self,
        of_piece: OfPiece,
        schema: pa.Schema,
    ) -> DataFrame:
        """What a function makes of each piece, in tasks of neighbours, in the order of the log."""
        read = partial(_read_pieces, log=self.log, pieces=self._pieces, of_piece=of_piece)
        count = len(self._pieces)
        tasks = min(count, TASKS_A_CORE * self._spark.sparkContext.defaultParallelism)
        return self._spark.range(0, count, 1, tasks).mapInArrow(read, _ddl(schema))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except PySparkException as error:
            words = str(error).partition("JVM stacktrace")[0]
            _, ours, line = words.partition(f"{InputError.__module__}.InputError: ")
            if ours:  # said by a task, with its traceback
                raise InputError(line.partition("\n")[0]) from error
            raise InputError(f"{self.log.folder} could not be read: {words}") from error
        except Py4JJavaError as error:
            words = error.java_exception.getMessage()
            raise InputError(f"{self.log.folder} could not be read: {words}") from error


def _requests_of_partition(
    batches: Iterable[pa.RecordBatch], rules: EventRules
) -> Iterator[pa.RecordBatch]:
    for chunk in whole_users(batches):
        for requests in requests_of(chunk, rules):
            yield from requests.to_batches()


def _read_pieces(
    batches: Iterable[pa.RecordBatch],
    log: EventLog,
    pieces: list[tuple[FormedFile, Piece]],
    of_piece: OfPiece,
) -> Iterator[pa.RecordBatch]:
    for number in (number for batch in batches for number in batch["id"].to_pylist()):
        for table in of_piece(log, *pieces[number]):
            yield from table.combine_chunks().to_batches()


def _facts(log: EventLog, file: FormedFile, piece: Piece) -> Iterator[pa.Table]:
    for _, facts in typed_events(log, file, piece):
        yield facts


def _events(log: EventLog, file: FormedFile, piece: Piece, in_a_second: int) -> Iterator[pa.Table]:
    for events, _ in typed_events(log, file, piece):
        at = events.column_names.index("timestamp")
        seconds = np.floor_divide(events["timestamp"].to_numpy(), in_a_second)
        yield events.set_column(at, "timestamp", pa.array(seconds, INT64))


def _ddl(schema: pa.Schema) -> str:
    """What Spark calls a schema."""
    names = (field.name.replace("`", "``") for field in schema)
    kinds = (_SQL[field.type] for field in schema)
    return ", ".join(f"`{name}` {kind}" for name, kind in zip(names, kinds, strict=True))


def _uri(path: Path) -> str:
    """A folder to write, for Spark."""
    return f"file://{path.resolve()}"
