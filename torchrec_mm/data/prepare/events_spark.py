"""Event logs that outgrow one machine: Spark reads, brings users together and writes.

Spark takes master, memory and the rest from its own configuration (spark-submit,
spark-defaults.conf, SPARK_CONF_DIR); without any it runs on this machine. Input and output folders
must be reachable from every executor, and this package must be installed there.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.event_counts import KINDS_SCHEMA, MAX_KINDS, EventCounts
from torchrec_mm.data.prepare.event_log import COLUMNS, NUMBERS, WHOLE_NUMBER, LogFiles
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

REQUEST_DDL = (
    "user_id bigint, timestamp bigint, behaviour_item_ids array<bigint>, "
    "candidate_item_ids array<bigint>, labels array<tinyint>, is_test boolean"
)
_SQL = {INT64: "BIGINT", STRING: "STRING"}
# Columns come from the files alone, never from folders called user_id=3, and from every file,
# whatever the session is set to.
_AS_IT_IS = {
    "recursiveFileLookup": True,
    "mergeSchema": False,
    "ignoreCorruptFiles": False,
    "ignoreMissingFiles": False,
}


class SparkEngine:
    """One event log, read by Spark.

    Args:
        folder: of the log, for messages. log: its files. rules: which events count.

    Raises:
        InputError: Spark does not start.
    """

    def __init__(self, folder: Path, log: list[LogFiles], rules: EventRules) -> None:
        self.folder, self.rules = folder, rules
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        self._is_ours = SparkSession.getActiveSession() is None
        try:
            builder = SparkSession.builder.appName("torchrec_mm.prepare")
            self._spark = builder.config("spark.sql.caseSensitive", "true").getOrCreate()
        except PySparkException as error:
            raise InputError(f"engine spark needs Java, 17 or newer: {error}") from error
        with self._named_errors():
            frames = [_read(self._spark, files) for files in log]
        self._events = reduce(DataFrame.unionAll, frames)

    def count_events(self) -> EventCounts:
        """One pass over the log."""
        with self._named_errors():
            kinds = self._events.groupBy("event").agg(
                F.count("*").alias("events"),
                *(F.count(name).alias(name) for name in NUMBERS),
                F.min("timestamp").alias("first"),
                F.max("timestamp").alias("last"),
            )
            counted = kinds.limit(MAX_KINDS + 1).toArrow()
            return EventCounts.of(counted.cast(KINDS_SCHEMA), self.rules)

    def item_ids(self, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """item_id: the distinct items of these kinds of events, ascending; all in the driver."""
        chosen = self._events.filter(F.col("event").isin(list(kinds)))
        ids = chosen.select("item_id").distinct().sort("item_id").toArrow()
        yield from ids.cast(pa.schema({"item_id": INT64})).to_batches()

    def write_requests(self, folder: Path, events: int) -> None:
        """Write ``folder/train`` and ``folder/test``, users in any order.

        Args:
            folder: may not exist yet.
            events: how many there are; Spark shows progress its own way.
        """
        clicked = self.rules.clicked_event
        requests = (
            self._events.filter(F.col("event").isin(self.rules.shown_event, clicked))
            .withColumn("is_click", F.col("event") == clicked)
            .select(*SORTED_BY)
            .repartition("user_id")
            .sortWithinPartitions(*SORTED_BY)
            .mapInArrow(partial(_requests_of_partition, rules=self.rules), REQUEST_DDL)
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

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except PySparkException as error:
            words = str(error).partition("JVM stacktrace")[0]
            raise InputError(f"{self.folder} could not be read: {words}") from error
        except Py4JJavaError as error:
            words = error.java_exception.getMessage()
            raise InputError(f"{self.folder} could not be read: {words}") from error


def _requests_of_partition(
    batches: Iterable[pa.RecordBatch], rules: EventRules
) -> Iterator[pa.RecordBatch]:
    for chunk in whole_users(batches):
        for requests in requests_of(chunk, rules):
            yield from requests.to_batches()


def _read(spark: SparkSession, files: LogFiles) -> DataFrame:
    """COLUMNS of some files, null where a value is not of its column's type."""
    paths = [_pattern(file) for file in files.files]
    reader = spark.read.options(**_AS_IT_IS)
    if files.places is None:
        casts = (f"TRY_CAST({name} AS {_SQL[kind]}) AS {name}" for name, kind in COLUMNS.items())
        return reader.parquet(*paths).selectExpr(*casts)
    fields = ", ".join(f"c{at} string" for at in range(files.width))
    lines = reader.schema(fields).csv(
        paths, header=True, quote='"', escape='"', multiLine=True, mode="FAILFAST"
    )
    return lines.select(*(_csv_column(name, f"c{at}") for name, at in files.places.items()))


def _csv_column(name: str, field: str) -> "F.Column":
    if name == "event":
        return F.coalesce(F.col(field), F.lit("")).alias("event")
    is_number = F.col(field).rlike(WHOLE_NUMBER)
    return F.when(is_number, F.expr(f"TRY_CAST({field} AS BIGINT)")).alias(name)


def _pattern(path: Path) -> str:
    """A file to read, for Spark, to which ``[`` and ``*`` in a path would be wildcards."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", _uri(path))


def _uri(path: Path) -> str:
    """A folder to write, for Spark."""
    return f"file://{path.resolve()}"
