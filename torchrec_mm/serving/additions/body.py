"""Behaviours that a client adds, as they travel and as they are kept.

Shape letters: n behaviours, A attributes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.jagged import Jagged, values_and_offsets
from torchrec_mm.columns.numbers import in_one, to_numpy
from torchrec_mm.columns.parquet import INT64, INT64_LIST, STRING, check_columns
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.columns.text_ids import hash_texts
from torchrec_mm.data.contract.features import Categorical
from torchrec_mm.data.contract.request_columns import RequestColumns, column_of
from torchrec_mm.data.contract.requests import check_same_lengths
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.errors import InputError
from torchrec_mm.serving.histories import BEHAVIOURS
from torchrec_mm.serving.json_body import read_rows, table_of
from torchrec_mm.serving.wire import Limits

BEHAVIOUR, SEVERAL = "behaviour", "behaviours"
OF_TIMES = "_timestamps"
OUTCOMES = ("added", "known", "older")


@dataclass(frozen=True)
class Kind:
    """A behaviour sequence: its columns.

    items: of item ids. times: of their times. attributes: by column, of behaviours alone.
    """

    items: str
    times: str
    attributes: Mapping[str, Categorical]


@dataclass(frozen=True)
class Added:
    """n behaviours of one kind, of any users, in any order.

    users, times, item_ids: (n,) int64. attributes: (n, A) int64 ids in the order of the kind's.
    """

    users: np.ndarray
    times: np.ndarray
    item_ids: np.ndarray
    attributes: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Additions:
    """What a body adds: by the column of the items, and the texts of attributes by their id."""

    of_kind: Mapping[str, Added]
    texts: Mapping[int, str]


@dataclass(frozen=True)
class Deletion:
    """All that a user did up to ``at``, in seconds, is to be forgotten."""

    user: int
    at: int


def kinds_of(columns: RequestColumns) -> dict[str, Kind]:
    """The behaviour sequences of a ranker, by the column of their items."""
    kinds = {BEHAVIOURS: Kind(BEHAVIOURS, BEHAVIOUR + OF_TIMES, columns.behaviour_attributes)}
    for event in columns.sequences:
        kinds[column_of(event)] = Kind(column_of(event), event + OF_TIMES, {})
    return kinds


def types_of(columns: RequestColumns) -> dict[str, pa.DataType]:
    """The columns of a body: the user, and lists of equal length for each kind of behaviour."""
    types: dict[str, pa.DataType] = {USER_ID: INT64}
    for kind in kinds_of(columns).values():
        types |= {kind.items: INT64_LIST, kind.times: INT64_LIST}
        types |= {name: attribute.kind for name, attribute in kind.attributes.items()}
    return types


def read_json(body: bytes, columns: RequestColumns) -> pa.Table:
    """A user's behaviours, an object by column, or ``{"behaviours": [...]}``; InputErrors."""
    rows = read_rows(body, SEVERAL, "addition")
    return table_of(rows, "addition", types_of(columns), {USER_ID}, columns.all)


def parse(table: pa.Table, columns: RequestColumns, limits: Limits) -> Additions:
    """Check a table of users' behaviours.

    Raises:
        InputError: another column or type, a null, lists of one kind that differ in length, times
            that are no seconds, more rows or longer lists than may be.
    """
    types = types_of(columns)
    for name in table.column_names:
        if name not in types:
            rule = f"additions must have the columns {', '.join(types)}"
            raise InputError(f"{rule}, got {name}")
    if not 1 <= table.num_rows <= limits.requests:
        raise InputError(f"additions must be 1 to {limits.requests}, got {table.num_rows}")
    lists = {name: kind for name, kind in types.items() if name != USER_ID}
    table = check_columns(table, "additions", {USER_ID: INT64}, lists)
    for name, kind in lists.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    users = to_numpy(table[USER_ID])
    of_kind: dict[str, Added] = {}
    texts: dict[int, str] = {}
    for kind in kinds_of(columns).values():
        of_kind[kind.items] = _added(table, kind, users, limits)
        texts |= dict(_texts(table, kind))
    return Additions(of_kind, texts)


def _added(table: pa.Table, kind: Kind, users: np.ndarray, limits: Limits) -> Added:
    items = Jagged.from_arrow(table[kind.items], f"additions column {kind.items}")
    if items.lengths.max(initial=0) > limits.behaviours:
        rule = f"{kind.items} must be at most {limits.behaviours} long"
        raise InputError(f"{rule}, got {items.lengths.max()}")
    times = Jagged.from_arrow(table[kind.times], f"additions column {kind.times}")
    check_same_lengths("additions", kind.times, times, kind.items, items)
    seconds = pa.chunked_array([in_one(table[kind.times]).flatten()])
    check_seconds("additions", kind.times, seconds)
    attributes = np.empty((len(items.values), len(kind.attributes)), np.int64)
    for place, (name, attribute) in enumerate(kind.attributes.items()):
        values, offsets = values_and_offsets(table[name])
        check_same_lengths("additions", name, Jagged(values, offsets), kind.items, items)
        attributes[:, place] = attribute.ids(values, f"additions column {name}")
    return Added(users[items.owners()], times.values, items.values, attributes)


def _texts(table: pa.Table, kind: Kind) -> Iterator[tuple[int, str]]:
    """The attributes' texts by id."""
    for name, attribute in kind.attributes.items():
        if attribute.kind.value_type == STRING:
            values = pc.drop_null(values_and_offsets(table[name])[0])
            yield from zip(hash_texts(values).to_pylist(), values.to_pylist(), strict=True)
