"""JSON from outside to tables, by the types that columns have."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from torchrec_mm.columns.parquet import BOOL, FLOAT64, INT64, STRING
from torchrec_mm.errors import InputError

Rows = Sequence[Mapping[str, Any]]
EXACT = 2**53
# By type of a column, what JSON may hold.
TYPES: Mapping[pa.DataType, set[type]] = {
    INT64: {int},
    FLOAT64: {int, float},
    BOOL: {bool},
    STRING: {str},
}


def read_rows(body: bytes, several: str, what: str) -> Rows:
    """The objects of a body, one or a list of them by the name ``several``; at least one.

    ``what``: each of them is, in complaints. InputError: anything else.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"body must be JSON: {error}") from error
    rows = said[several] if isinstance(said, dict) and {*said} == {several} else [said]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"body must be a {what}, or hold a list of them as {several}")
    return rows


def table_of(
    rows: Rows,
    what: str,
    types: Mapping[str, pa.DataType],
    needed: Container[str],
    features: Container[str],
    nullable: Container[str] = (),
) -> pa.Table:
    """A column of each type; what rows leave out is null.

    Args:
        rows, what: see ``read_rows``. types: of all columns that there may be. needed: those that
            no row may leave out. features: those of which true and false are 1 and 0, as in files.
            nullable: lists that may be said to be null; any may be left out.

    Raises:
        InputError: another column, one that is missing, a value of another type.
    """
    for number, row in enumerate(rows):
        for name in row:
            if name not in types:
                rule = f"{what} {number} must have columns that the ranker reads"
                raise InputError(f"{rule}, {', '.join(types)}, got {name}")
    for number, row in enumerate(rows):
        for name in types:
            if name in needed and row.get(name) is None:
                raise InputError(f"{what} {number} must have {name}")
        for name, value in row.items():
            if value is None and pa.types.is_list(types[name]) and name not in nullable:
                raise InputError(f"{what} {number} {name} must be {types[name]}, got null")
    return pa.table(
        {name: _column(what, name, kind, name in features, rows) for name, kind in types.items()}
    )


def _column(what: str, name: str, kind: pa.DataType, is_feature: bool, rows: Rows) -> pa.Array:
    """A column of JSON's values. ``is_feature``: true and false are then 1 and 0, as in files."""
    is_list = pa.types.is_list(kind)
    each = kind.value_type if is_list else kind
    values: list[Any] = [row.get(name) for row in rows]
    for number, value in enumerate(values):
        parts = value if is_list and type(value) is list else [value]
        kinds = {*map(type, parts)} - {type(None)}  # nulls have rules of their own, by column
        if each == INT64 and not kinds <= {int}:
            parts = _whole(parts, is_feature)
            kinds = {*map(type, parts)} - {type(None)}
            values[number] = parts if is_list else parts[0]
        if kinds - TYPES[each] or (is_list and type(value) not in (list, type(None))):
            rule = f"{what} {number} {name} must be {kind}"
            raise InputError(f"{rule}, got {short(value)}")
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        for number, value in enumerate(values):
            try:
                pa.array([value], kind)
            except (pa.ArrowException, OverflowError):
                rule = f"{what} {number} {name} must be {kind}"
                raise InputError(f"{rule}, got {short(value)}") from error
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


def short(value: Any, most: int = 60) -> str:
    """A value as JSON has it, cut where it is long."""
    said = orjson.dumps(value, default=str).decode()
    return said if len(said) <= most else f"{said[:most]}..."
