"""Parquet tables: columns of the promised types, whatever form a writer chose."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.reading import input_errors
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file

INT64 = pa.int64()
INT8 = pa.int8()
BOOL = pa.bool_()
FLOAT64 = pa.float64()
STRING = pa.string()
BINARY = pa.binary()
INT64_LIST = pa.list_(pa.int64())
INT8_LIST = pa.list_(pa.int8())
STRING_LIST = pa.list_(pa.string())


def check_columns(
    table: pa.Table,
    where: Path | str,
    required: Mapping[str, pa.DataType],
    nullable: Mapping[str, pa.DataType] | None = None,
) -> pa.Table:
    """Return ``table`` with the named columns cast to their promised types.

    Another width of the same kind (int32 -> int64, large_string -> string, large_list -> list) is
    allowed where every value fits; another kind is not, not even text that reads as a number.
    Columns not named pass through. ``nullable`` columns may be absent and may hold nulls;
    ``required`` ones may not.

    Args:
        table: of one file or a part of it: what several files hold must not be one type before
            each has been looked at.
        where: what errors name.

    Raises:
        InputError: a column is missing, of the wrong type, null where it must not be, or bytes
            that are no text.
    """
    nullable = nullable or {}
    for name, wanted in {**required, **nullable}.items():
        if name not in table.column_names:
            if name in required:
                rule = f"{where} must have a column {name}"
                raise InputError(f"{rule}, got {', '.join(table.column_names)}")
            continue
        column = _as_promised(table[name], f"{where} column {name}", wanted)
        if name in required and column.null_count:
            rule = f"{where} column {name} must not be null"
            raise InputError(f"{rule}, got {column.null_count} nulls")
        if column.type != table[name].type:
            table = table.set_column(table.column_names.index(name), name, column)
    return table


def _as_promised(column: pa.ChunkedArray, where: str, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type != wanted:
        if not same_kind(column.type, wanted):
            raise InputError(f"{where} must be {wanted}, got {column.type}")
        with input_errors(where, f"must be {wanted}, got {column.type}"):
            column = column.cast(wanted, safe=True)
    if wanted in (STRING, STRING_LIST):
        with input_errors(where, "must be UTF-8 text"):
            column.validate(full=True)  # files say that it is, and nobody looks before it is used
    return column


def same_kind(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether both are integers, reals, Booleans, text, bytes, or lists of the same kind."""
    if pa.types.is_dictionary(given):
        return same_kind(given.value_type, wanted)
    if is_list(given) and is_list(wanted):
        return same_kind(given.value_type, wanted.value_type)
    numbers = (pa.types.is_integer, _is_real, pa.types.is_boolean)
    kinds = (*numbers, _is_text, _is_bytes)
    # A column of nothing but nulls, or of empty lists, has no kind of its own yet.
    return pa.types.is_null(given) or any(kind(given) and kind(wanted) for kind in kinds)


def is_list(kind: pa.DataType) -> bool:
    """Whether it casts to a list. Arrow 26 drops values of list views when it casts them."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _is_real(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        pa.types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def write_table(path: Path, table: pa.Table, row_group_rows: int = 10_000) -> None:
    """Write one Parquet file, whole or not at all."""
    with new_file(path) as aside:
        pq.write_table(table, aside, row_group_size=row_group_rows, compression="zstd")
