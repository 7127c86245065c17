"""Requests and answers as they travel: JSON for people, Arrow for machines.

Both have the columns of ``requests/`` by the same names and types, labels apart, and both are
refused in one line: the request that is wrong, what must be, what came.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from torchrec_mm.columns.jagged import offsets_of
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.columns.parquet import BOOL, FLOAT64, INT64, STRING, same_kind
from torchrec_mm.data.contract.features import FeatureT
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES, RequestColumns
from torchrec_mm.data.contract.requests import Requests, parse_requests
from torchrec_mm.errors import InputError
from torchrec_mm.serving.histories import Histories, of_behaviours

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
ANSWER = "click_probabilities"
REQUESTS = "requests"
EXACT = 2**53
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of an Arrow message
# By type of a column, what JSON may hold.
TYPES: Mapping[pa.DataType, set[type]] = {
    INT64: {int},
    FLOAT64: {int, float},
    BOOL: {bool},
    STRING: {str},
}


@dataclass(frozen=True)
class Limits:
    """The most that is taken from a client at once.

    bytes: of a body. requests: in it. candidates, behaviours: of each, the latter of every
    sequence.
    """

    bytes: int
    requests: int
    candidates: int
    behaviours: int

    def check(self, table: pa.Table, columns: RequestColumns) -> None:
        """InputError for a body with more."""
        if table.num_rows > self.requests:
            raise InputError(f"requests must be at most {self.requests}, got {table.num_rows}")
        for name in columns.lists:
            most = self.candidates if name.startswith(OF_CANDIDATES) else self.behaviours
            if name not in table.column_names or not pa.types.is_list(table[name].type):
                continue  # refused by the parser, in its own words
            lengths = pa.compute.max(pa.compute.list_value_length(table[name])).as_py() or 0
            if lengths > most:
                raise InputError(f"{name} must be at most {most} long, got {lengths}")


def read_json(body: bytes, columns: RequestColumns) -> pa.Table:
    """A request, an object by column, or ``{"requests": [...]}``; what is left out is null.

    Raises:
        InputError: no JSON, a name that the ranker does not read, no user, a value of another type.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"body must be JSON: {error}") from error
    rows = said[REQUESTS] if isinstance(said, dict) and {*said} == {REQUESTS} else [said]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"body must be a request, or hold a list of them as {REQUESTS}")
    types = {**columns.required, **columns.nullable}
    for number, row in enumerate(rows):
        for name in row:
            if name not in types:
                rule = f"request {number} must have columns that the ranker reads"
                raise InputError(f"{rule}, {', '.join(types)}, got {name}")
    needed = columns.required.keys() - of_behaviours(columns).keys()
    for number, row in enumerate(rows):
        for name in columns.required:
            if name in needed and row.get(name) is None:
                raise InputError(f"request {number} must have {name}")
    of_model = columns.all
    return pa.table(
        {name: _column(name, kind, name in of_model, rows) for name, kind in types.items()}
    )


def _column(
    name: str, kind: pa.DataType, is_feature: bool, rows: Sequence[Mapping[str, Any]]
) -> pa.Array:
    """A column of JSON's values. ``is_feature``: true and false are then 1 and 0, as in files."""
    is_list = pa.types.is_list(kind)
    each = kind.value_type if is_list else kind
    values: list[Any] = [row.get(name) for row in rows]
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        parts = value if is_list and type(value) is list else [value]
        kinds = {*map(type, parts)} - {type(None)}  # nulls have rules of their own, by column
        if each == INT64 and not kinds <= {int}:
            parts = _whole(parts, is_feature)
            kinds = {*map(type, parts)} - {type(None)}
            values[number] = parts if is_list else parts[0]
        if kinds - TYPES[each] or (is_list and type(value) is not list and name in row):
            rule = f"request {number} {name} must be {kind}"
            raise InputError(f"{rule}, got {_short(value)}")
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        for number, value in enumerate(values):
            try:
                pa.array([value], kind)
            except (pa.ArrowException, OverflowError):
                rule = f"request {number} {name} must be {kind}"
                raise InputError(f"{rule}, got {_short(value)}") from error
        raise InputError(f"{name} must be {kind}: {error}") from error


def _whole(parts: Sequence[Any], is_feature: bool) -> list[Any]:
    """Whole numbers as such: JSON's 2.0 is one, and so are true and false of a feature.

    Arrow would cut 2.5 to 2; beyond EXACT a float no longer says which number was meant.
    """

    def whole(part: Any) -> Any:
        if type(part) is float and part.is_integer() and abs(part) <= EXACT:
            return int(part)
        return int(part) if is_feature and type(part) is bool else part

    return [whole(part) for part in parts]


def _short(value: Any, most: int = 60) -> str:
    said = orjson.dumps(value, default=str).decode()
    return said if len(said) <= most else f"{said[:most]}..."


def read_arrow(body: bytes) -> pa.Table:
    """An Arrow IPC stream of a table in the layout of ``requests/``.

    Raises:
        InputError: anything else, one whose buffers contradict each other, or that is compressed,
            of which nobody can say how large it is before it is there.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
            if is_compressed(message.metadata.to_pybytes()):
                raise InputError("body must be an Arrow IPC stream without compression")
        with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
            table = stream.read_all()
        table.validate(full=True)  # it comes from outside: offsets may lead anywhere
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, struct.error) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"body must be an Arrow IPC stream: {first}") from error
    return table


def is_compressed(message: bytes) -> bool:
    """Whether a message of a stream, its flatbuffer as in Arrow's Message.fbs, has such buffers.

    Raises:
        struct.error: offsets that lead outside of it.
    """

    def field(table: int, number: int) -> int:
        """Where a field of a table begins, 0 if it has none."""
        fields = table - struct.unpack_from("<i", message, table)[0]
        (size,) = struct.unpack_from("<H", message, fields)
        at = 4 + 2 * number
        (offset,) = struct.unpack_from("<H", message, fields + at) if at < size else (0,)
        return table + offset if offset else 0

    def table(at: int) -> int:
        return at + int(struct.unpack_from("<I", message, at)[0])

    root = table(0)
    kind, header = field(root, 1), field(root, 2)
    number = message[kind] if 0 < kind < len(message) else 0
    if not header or number not in (DICTIONARY_BATCH, RECORD_BATCH):
        return False
    batch = table(header)
    if number == DICTIONARY_BATCH:
        data = field(batch, 1)
        if not data:
            return False
        batch = table(data)
    return field(batch, 3) != 0


def parse(
    table: pa.Table,
    columns: RequestColumns,
    limits: Limits,
    behaviours: int,
    histories: Histories,
) -> Requests:
    """Check a table of at least one request.

    ``behaviours``: the newest that are kept. ``histories``: of users who bring none.

    Raises:
        InputError: beyond the limits, a column that the ranker does not read, and what
            ``parse_requests`` refuses.
    """
    if not table.num_rows:
        raise InputError("requests must be at least 1, got 0")
    known = {**columns.required, **columns.nullable}
    for name in table.column_names:
        if name not in known:
            rule = f"requests must have columns that the ranker reads, {', '.join(known)}"
            raise InputError(f"{rule}, got {name}")
    limits.check(table, columns)
    table = histories.fill(table)
    for name, kind in columns.nullable.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    as_sent = _as_sent(columns, table)
    return parse_requests(table.combine_chunks(), "requests", as_sent, behaviours)


def _as_sent(columns: RequestColumns, table: pa.Table) -> RequestColumns:
    """The columns by the types that they came in, of those that each may have."""

    def each(features: Mapping[str, FeatureT]) -> dict[str, FeatureT]:
        found = {}
        for name, feature in features.items():
            sent = table.schema.field(name).type if name in table.column_names else feature.kind
            fitting = (kind for kind in feature.types if same_kind(sent, kind))
            found[name] = feature.read_as(next(fitting, feature.kind))
        return found

    return replace(
        columns,
        features=each(columns.features),
        numbers=each(columns.numbers),
        impression_numbers=each(columns.impression_numbers),
    )


def write_json(probabilities: Sequence[np.ndarray], checkpoint: str) -> bytes:
    """``{"click_probabilities": [[...], ...], "checkpoint": ...}``, a list a request."""
    return orjson.dumps(
        {ANSWER: list(probabilities), "checkpoint": checkpoint},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def write_error(said: str) -> bytes:
    """What went wrong, in a line."""
    return orjson.dumps({"error": said})


def write_status(checkpoint: str) -> bytes:
    """That all is well, and what scores."""
    return orjson.dumps({"status": "ready", "checkpoint": checkpoint})


def write_arrow(probabilities: Sequence[np.ndarray], checkpoint: str) -> bytes:
    """A stream of one column, lists of float32; the checkpoint is in the schema's metadata."""
    offsets = offsets_of(np.array([len(each) for each in probabilities])).astype(np.int32)
    values = to_arrow(np.concatenate(probabilities))
    table = pa.table({ANSWER: pa.ListArray.from_arrays(to_arrow(offsets), values)})
    table = table.replace_schema_metadata({"checkpoint": checkpoint})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
