"""Requests and answers as they travel: JSON for people, Arrow for machines.

Both have the columns of ``requests/`` by the same names and types, labels apart, and both are
refused in one line: the request that is wrong, what must be, what came.
"""

import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson
import pyarrow as pa

from torchrec_mm.columns.jagged import offsets_of
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.columns.parquet import (
    STRING,
    check_columns,
    same_kind,
)
from torchrec_mm.data.contract.features import FeatureT
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES, REQUEST_ID, RequestColumns
from torchrec_mm.data.contract.requests import Requests, parse_requests
from torchrec_mm.errors import InputError
from torchrec_mm.serving.histories import Histories, of_behaviours
from torchrec_mm.serving.json_body import read_rows, short, table_of

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
ANSWER = "click_probabilities"
REQUESTS = "requests"
REQUEST_IDS = "request_ids"
LONGEST_ID = 128


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


@dataclass(frozen=True)
class Asked:
    """What a client asked.

    requests: R of them. table: the same as columns, behaviours of users who brought none filled in.
    request_ids: R of them, each the client's own or a new one.
    """

    requests: Requests
    table: pa.Table
    request_ids: list[str]


def columns_of(columns: RequestColumns) -> dict[str, pa.DataType]:
    """All that a request may have.

    Raises:
        InputError: a ranker that has a feature of the name that requests go by.
    """
    if REQUEST_ID in columns.all:
        raise InputError(f"run_dir must be of a ranker without a feature {REQUEST_ID}")
    return {**columns.required, **columns.nullable, REQUEST_ID: STRING}


def read_json(body: bytes, columns: RequestColumns) -> pa.Table:
    """A request, an object by column, or ``{"requests": [...]}``; what is left out is null.

    Raises:
        InputError: no JSON, a name that the ranker does not read, no user, a value of another type.
    """
    needed = columns.required.keys() - of_behaviours(columns).keys()
    rows = read_rows(body, REQUESTS, "request")
    types = columns_of(columns)
    return table_of(rows, "request", types, needed, columns.all, columns.nullable)


def parse(
    table: pa.Table,
    columns: RequestColumns,
    limits: Limits,
    behaviours: int,
    histories: Histories,
) -> Asked:
    """Check a table of at least one request.

    ``behaviours``: the newest that are kept. ``histories``: of users who bring none.

    Raises:
        InputError: beyond the limits, a column that the ranker does not read, and what
            ``parse_requests`` refuses.
    """
    if not table.num_rows:
        raise InputError("requests must be at least 1, got 0")
    known = columns_of(columns)
    for name in table.column_names:
        if name not in known:
            rule = f"requests must have columns that the ranker reads, {', '.join(known)}"
            raise InputError(f"{rule}, got {name}")
    limits.check(table, columns)
    request_ids = _request_ids(table)
    table = histories.fill(table)
    for name, kind in columns.nullable.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    table = table.combine_chunks()
    requests = parse_requests(table, "requests", _as_sent(columns, table), behaviours)
    return Asked(requests, table, request_ids)


def _request_ids(table: pa.Table) -> list[str]:
    """The clients' own, new ones where they bring none; InputError for what can be none."""
    given: list[str | None] = [None] * table.num_rows
    if REQUEST_ID in table.column_names:
        table = check_columns(table, "requests", {}, {REQUEST_ID: STRING})
        given = table[REQUEST_ID].to_pylist()
    own = [name for name in given if name is not None]
    for name in own:
        if not 0 < len(name) <= LONGEST_ID:
            rule = f"{REQUEST_ID} must be 1 to {LONGEST_ID} characters long"
            raise InputError(f"{rule}, got {len(name)}")
    if len({*own}) < len(own):
        twice = next(name for name in own if own.count(name) > 1)
        raise InputError(f"{REQUEST_ID} must be unique, got {short(twice)} more than once")
    return [uuid.uuid4().hex if name is None else name for name in given]


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


def write_json(
    probabilities: Sequence[np.ndarray], request_ids: Sequence[str], checkpoint: str
) -> bytes:
    """``{"click_probabilities": [[...], ...], "request_ids": [...], "checkpoint": ...}``."""
    return orjson.dumps(
        {ANSWER: list(probabilities), REQUEST_IDS: request_ids, "checkpoint": checkpoint},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def write_error(said: str) -> bytes:
    """What went wrong, in a line."""
    return orjson.dumps({"error": said})


def write_counts(counts: Mapping[str, int]) -> bytes:
    """What became of what was sent."""
    return orjson.dumps(counts)


def write_status(checkpoint: str) -> bytes:
    """That all is well, and what scores."""
    return orjson.dumps({"status": "ready", "checkpoint": checkpoint})


def write_arrow(
    probabilities: Sequence[np.ndarray], request_ids: Sequence[str], checkpoint: str
) -> bytes:
    """A stream of lists of float32 and request_id; the checkpoint is in the schema's metadata."""
    offsets = offsets_of(np.array([len(each) for each in probabilities])).astype(np.int32)
    values = to_arrow(np.concatenate(probabilities))
    lists = pa.ListArray.from_arrays(to_arrow(offsets), values)
    table = pa.table({ANSWER: lists, REQUEST_ID: pa.array(request_ids, STRING)})
    table = table.replace_schema_metadata({"checkpoint": checkpoint})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
