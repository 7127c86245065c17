"""The files of an event log, and what must hold of them before anything is read."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.csv_files import csv_columns
from torchrec_mm.columns.files import CSV, PARQUET, data_files
from torchrec_mm.columns.names import refuse_lookalikes
from torchrec_mm.columns.parquet import INT64, STRING, check_columns
from torchrec_mm.columns.reading import read_footer

NUMBERS = ("user_id", "item_id", "timestamp")
COLUMNS = dict.fromkeys(NUMBERS, INT64) | {"event": STRING}
WHOLE_NUMBER = r"^\s*[+-]?[0-9]+\s*$"  # of CSV fields: a cast alone would take 1.5 for 2


@dataclass(frozen=True)
class LogFiles:
    """Files of a log that are read alike.

    files: in name order. places: of CSV files, the place of each of COLUMNS in a line; None of
    Parquet files. width: of CSV files, the fields of a line; 0 of Parquet files.
    """

    files: tuple[Path, ...]
    places: dict[str, int] | None = None
    width: int = 0


def open_log(folder: Path) -> list[LogFiles]:
    """The files of a folder of Parquet or of CSV logs, by how they are read.

    Only headers and schemas are looked at.

    Raises:
        InputError: missing folder, both kinds of files or neither, any other entry, an unreadable
            file, a missing column, two that differ by case or spaces alone or a wrong type.
    """
    files = data_files(folder, (PARQUET, CSV))
    if files[0].suffix == CSV:
        layouts = [(file, csv_columns(file, COLUMNS)) for file in files]
        alike = _alike((file, (tuple(places.items()), width)) for file, (places, width) in layouts)
        return [LogFiles(files, dict(places), width) for (places, width), files in alike]
    return [LogFiles(files) for _, files in _alike((f, _types(f)) for f in files)]


def _alike(files: Iterable[tuple[Path, tuple]]) -> list[tuple[tuple, tuple[Path, ...]]]:
    groups = defaultdict(list)
    for file, key in files:
        groups[key].append(file)
    return [(key, tuple(group)) for key, group in groups.items()]


def _types(file: Path) -> tuple[pa.DataType, ...]:
    """Checked types of COLUMNS in a Parquet file."""
    schema = read_footer(file).schema
    refuse_lookalikes(file, schema.names, COLUMNS)
    check_columns(schema.empty_table(), file, COLUMNS)
    return tuple(schema.field(name).type for name in COLUMNS)
