"""Files of a public data set by name, and DuckDB to join and sort them in bounded memory."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from torchrec_mm.errors import InputError

BATCH_ROWS = 122_880
DUCKDB_SHARE = 0.4  # of the memory; the rest is Python's
CSV = "header = true, delim = ',', quote = '\"', escape = '\"', hive_partitioning = false"
LINES = 3  # of a complaint of DuckDB's: where and what; options follow


def find(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first pattern that has any, in name order.

    InputError: none has, naming the folder and all patterns.
    """
    for pattern in patterns:
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise InputError(f"{folder} must hold {' or '.join(patterns)}, found none")


def find_one(folder: Path, *patterns: str) -> Path:
    """The only file of the first pattern that has any; InputError for none, or several."""
    files = find(folder, *patterns)
    if len(files) > 1:
        found = ", ".join(file.name for file in files)
        raise InputError(f"{folder} must hold {' or '.join(patterns)} once, got {found}")
    return files[0]


class Tables:
    """A database of its own; what does not fit into its memory goes to disk."""

    def __init__(self, folder: Path, scratch: Path, memory_gb: float) -> None:
        """``folder``: named in complaints. ``memory_gb``: of the process, two fifths for DuckDB."""
        self.folder = folder
        self._database = duckdb.connect(
            config={
                "memory_limit": f"{memory_gb * DUCKDB_SHARE}GB",
                "temp_directory": str(scratch / "spill"),
                "preserve_insertion_order": False,
            }
        )
        self._database.execute("SET TimeZone = 'UTC'")

    def __call__(self, query: str, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT, ``rows`` at a time.

        Raises:
            InputError: in one line, for files that are not as it wants them.
        """
        with self._told(), self._database.cursor() as cursor:
            yield from cursor.sql(query).to_arrow_reader(rows)

    def keep(self, name: str, query: str) -> None:
        """Rows of a SELECT as a table that other queries name; InputErrors likewise."""
        with self._told(), self._database.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} AS {query}")

    def row(self, query: str) -> tuple[Any, ...]:
        """The first row of a SELECT that has one; InputErrors likewise."""
        with self._told(), self._database.cursor() as cursor:
            found = cursor.execute(query).fetchone()
        assert found is not None
        return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            why = " ".join(" ".join(str(error).split("\n")[:LINES]).split())
            raise InputError(f"{self.folder} could not be read: {why}") from error


def tables_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Each batch as a table."""
    return (pa.Table.from_batches([batch]) for batch in batches)


def hashed(column: str) -> str:
    """SQL: the id of a text, that of ``columns.text_ids``."""
    return f"CAST(CAST('0x' || substr(md5({column}), 1, 16) AS UBIGINT) >> 1 AS BIGINT)"


def listed(files: list[Path]) -> str:
    """SQL: a list of files, whatever characters their names have."""
    return "[" + ", ".join(text(glob.escape(str(file))) for file in files) + "]"


def json_rows(files: list[Path], types: dict[str, str]) -> str:
    """SQL: rows of JSON lines, packed or not; ``types``: SQL's, of the keys that are read."""
    columns = ", ".join(f"{text(name)}: {text(kind)}" for name, kind in types.items())
    return f"read_json({listed(files)}, format = 'newline_delimited', columns = {{{columns}}})"


def csv_rows(files: list[Path], types: dict[str, str]) -> str:
    """SQL: rows of CSV files with a header; ``types``: SQL's, of the columns that are read."""
    columns = ", ".join(f"{text(name)}: {text(kind)}" for name, kind in types.items())
    names = ", ".join(f'"{name}"' for name in types)  # user, alone, is who asks
    return f"(SELECT {names} FROM read_csv({listed(files)}, {CSV}, types = {{{columns}}}))"


def text(value: str) -> str:
    """SQL: a string."""
    return "'" + value.replace("'", "''") + "'"
