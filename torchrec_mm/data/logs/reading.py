"""Files of logs to tables, a bounded piece at a time: names, places and bytes, not what they mean.

Parquet is read by row group, CSV and JSON lines by file, unpacked on the way. Every row is known by
its number in its file, counted from 1 after a header.
"""

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.files import CSV, PARQUET, WORDS
from torchrec_mm.columns.log_files import LogFile
from torchrec_mm.columns.names import alike, place_of, refuse_lookalikes
from torchrec_mm.columns.parquet import INT64, STRING, check_columns, same_kind
from torchrec_mm.columns.reading import input_errors, read_footer, read_metadata
from torchrec_mm.errors import InputError

DELIMITERS = ",;\t|"
BLOCK_BYTES = 8 << 20  # of text read at a time; a row is shorter
PEEKED = 1000  # lines of JSON, for the names and types of a file
JSON_TYPES = {bool: pa.bool_(), int: INT64, float: pa.float64(), str: STRING, dict: pa.struct([])}


@dataclass(frozen=True)
class OpenFile:
    """A file whose header has been read.

    columns: name and type of each, in the file's order; text in CSV files. The partitions of its
    folders follow as text. delimiter: of CSV files, else empty.
    """

    file: LogFile
    columns: tuple[tuple[str, pa.DataType], ...]
    delimiter: str = ""

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def kind(self) -> str:
        return self.file.kind

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    @property
    def is_text(self) -> bool:
        """Whether values have no type of their own."""
        return self.kind == CSV

    def place(self, name: str) -> int:
        """Where a column is; InputError for none, or several. In CSV, case and spaces apart."""
        if self.is_text:
            return place_of(self.path, self.names, name)
        if name not in self.names:
            raise InputError(f"{self.path} must have a column {name}, got {', '.join(self.names)}")
        return self.names.index(name)

    def has(self, name: str) -> bool:
        """Whether ``place`` finds a column, or several."""
        return any(alike(name, each) if self.is_text else name == each for each in self.names)

    def is_partition(self, place: int) -> bool:
        return place >= len(self.columns) - len(self.file.partitions)


@dataclass(frozen=True)
class Piece:
    """What is read in one go: a row group of a Parquet file, or a file of text.

    group: None for text. first_row: number of its first row.
    """

    opened: OpenFile
    group: int | None
    first_row: int


def open_file(file: LogFile, delimiter: str | None, wanted: Collection[str]) -> OpenFile:
    """Read header, footer or first lines.

    Args:
        file: of a log. delimiter: of CSV files; None: of ``DELIMITERS``, the one by which the
            header holds all ``wanted`` columns. wanted: names of columns.

    Raises:
        InputError: an unreadable file, a wanted column missing, or another one called like it but
            for case and spaces.
    """
    partitions = tuple((name, STRING) for name in file.partitions)
    if file.kind == CSV:
        opened = _open_csv(file, delimiter, wanted, partitions)
    else:
        is_parquet = file.kind == WORDS[PARQUET]
        columns = _parquet_columns(file.path) if is_parquet else _json_columns(file.path)
        opened = OpenFile(file, (*columns, *partitions))
        refuse_lookalikes(file.path, opened.names, wanted)
    for name in file.partitions:
        if opened.names.count(name) > 1:
            rule = f"{file.path} must not have a column {name}"
            raise InputError(f"{rule}, which the name of its folder gives as well")
    for name in wanted:
        opened.place(name)
    return opened


def pieces(opened: OpenFile) -> Iterator[Piece]:
    """All pieces of a file, in its order."""
    if opened.kind != WORDS[PARQUET]:
        yield Piece(opened, None, 1)
        return
    metadata, first_row = read_metadata(opened.path), 1
    for group in range(metadata.num_row_groups):
        yield Piece(opened, group, first_row)
        first_row += metadata.row_group(group).num_rows


def read(piece: Piece, places: Mapping[str, int]) -> Iterator[tuple[pa.Table, int]]:
    """The columns at some places, under new names.

    Yields:
        A table with at least one row, and the number of its first row.

    Raises:
        InputError: an unreadable file, a line of another length, text that is not UTF-8.
    """
    opened, row = piece.opened, piece.first_row
    inside = {name: at for name, at in places.items() if not opened.is_partition(at)}
    for table in _tables(piece, inside or {"": 0}):  # of no column at all, rows are not counted
        for name in places.keys() - inside.keys():
            value = opened.file.partitions[opened.names[places[name]]]
            table = table.append_column(name, pa.array([value] * table.num_rows, STRING))
        yield _with_plain_text(table.select(list(places)), opened.path), row
        row += table.num_rows


def _with_plain_text(table: pa.Table, path: Path) -> pa.Table:
    """Text as string, whatever form a writer chose, and UTF-8."""
    kinds = {field.name: field.type for field in table.schema if not pa.types.is_null(field.type)}
    texts = {name: STRING for name, kind in kinds.items() if same_kind(kind, STRING)}
    return check_columns(table, path, {}, texts)


def _tables(piece: Piece, places: dict[str, int]) -> Iterator[pa.Table]:
    opened = piece.opened
    if piece.group is not None:
        names = {opened.names[at]: name for name, at in places.items()}
        for table, _ in read_chunks(opened.path, list(names), [piece.group]):
            yield table.select(list(names)).rename_columns(list(names.values()))
        return
    with input_errors(opened.path, f"must be readable as {opened.kind} in UTF-8"):
        reader = _csv_reader(opened, places) if opened.is_text else _json_reader(opened, places)
        for batch in reader:
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).rename_columns(list(places))


def _csv_reader(opened: OpenFile, places: dict[str, int]) -> Iterator[pa.RecordBatch]:
    fields = [f"c{at}" for at in range(len(opened.columns) - len(opened.file.partitions))]
    wanted = [fields[at] for at in places.values()]
    yield from pa_csv.open_csv(
        _unpacked(opened.path),
        pa_csv.ReadOptions(
            block_size=BLOCK_BYTES, column_names=fields, skip_rows_after_names=1, use_threads=False
        ),
        pa_csv.ParseOptions(delimiter=opened.delimiter, newlines_in_values=True),
        pa_csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, STRING),
            strings_can_be_null=False,
        ),
    )


def _json_reader(opened: OpenFile, places: dict[str, int]) -> Iterator[pa.RecordBatch]:
    wanted = [opened.columns[at] for at in places.values()]
    reader = pa_json.open_json(
        _unpacked(opened.path),
        pa_json.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        pa_json.ParseOptions(explicit_schema=pa.schema(wanted), unexpected_field_behavior="ignore"),
    )
    for batch in reader:
        yield batch.select([name for name, _ in wanted])


def _unpacked(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="detect")


def _open_csv(
    file: LogFile,
    delimiter: str | None,
    wanted: Collection[str],
    partitions: tuple[tuple[str, pa.DataType], ...],
) -> OpenFile:
    """With the delimiter given; else the one that gives all columns, or the most columns."""
    found = []
    for each in [delimiter] if delimiter else DELIMITERS:
        header = tuple((name, STRING) for name in _header(file.path, each))
        found.append(OpenFile(file, (*header, *partitions), each))
    good = [opened for opened in found if _has_all(opened, wanted)]
    if len(good) > 1:
        fitting = " and ".join(repr(opened.delimiter) for opened in good)
        raise InputError(f"delimiter must be given: {file.path} has all columns by {fitting}")
    return good[0] if good else max(found, key=lambda opened: len(opened.columns))


def _has_all(opened: OpenFile, wanted: Collection[str]) -> bool:
    try:
        return all(opened.place(name) >= 0 for name in wanted)
    except InputError:
        return False


def _header(path: Path, delimiter: str) -> list[str]:
    rule = "must be a CSV file in UTF-8 with a header"
    with input_errors(path, rule), _unpacked(path) as stream:
        lines = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), delimiter=delimiter)
        try:
            header = next(lines, [])
        except csv.Error as error:
            raise InputError(f"{path} {rule}: {error}") from error
    if not header:
        raise InputError(f"{path} {rule}, got an empty line or none")
    return header


def _parquet_columns(path: Path) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in read_footer(path).schema]


def _json_columns(path: Path) -> list[tuple[str, pa.DataType]]:
    """Names and types by the first lines; null where they hold no value."""
    types: dict[str, pa.DataType] = {}
    with input_errors(path, "must be readable as JSON lines in UTF-8"):
        with pa.input_stream(str(path), compression="detect") as stream:
            lines = stream.read(BLOCK_BYTES).splitlines(keepends=True)
        for number, line in enumerate(islice(filter(bytes.strip, lines), PEEKED), start=1):
            if number > 1 and not line.endswith(b"\n"):
                break  # the block ends inside it
            for name, value in _json_object(path, number, line).items():
                kind = _json_type(value)
                if name not in types or types[name] == pa.null():
                    types[name] = kind
    return list(types.items())


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path} row {number} must be JSON in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} row {number} must be a JSON object, got {value!r}")
    return value


def _json_type(value: Any) -> pa.DataType:
    if isinstance(value, list):
        inner = (_json_type(each) for each in value if each is not None)
        return pa.list_(next(inner, INT64))
    return JSON_TYPES.get(type(value), pa.null())
