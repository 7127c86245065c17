"""Parquet folders: find the files, check the columns, say what is wrong by name."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file

INT64 = pa.int64()
STRING = pa.string()
BINARY = pa.binary()
INT64_LIST = pa.list_(pa.int64())
INT8_LIST = pa.list_(pa.int8())


def parquet_files(folder: Path) -> list[Path]:
    """The folder's ``*.parquet`` files in name order.

    Raises:
        InputError: the folder is missing or holds no Parquet file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder of Parquet files: no such folder")
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise InputError(f"{folder} must hold at least one .parquet file, found none")
    return files


def open_dataset(folder: Path) -> ds.Dataset:
    """The folder as one Arrow dataset; every file must be readable and hold the same columns."""
    files = parquet_files(folder)
    schema = None
    for file in files:
        try:
            file_schema = pq.read_schema(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file} must be a readable Parquet file: {error}") from error
        if schema is not None and set(file_schema.names) != set(schema.names):
            raise InputError(
                f"{file} must have the columns of {files[0].name} ({', '.join(schema.names)}), "
                f"got {', '.join(file_schema.names)}"
            )
        schema = schema or file_schema
    return ds.dataset([str(file) for file in files], format="parquet")


def read_table(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a folder whole, or some columns of it.

    Raises:
        InputError: missing folder, unreadable file, missing column, or not a single row.
    """
    dataset = open_dataset(folder)
    require_columns(folder, dataset.schema, columns or [])
    try:
        table = dataset.to_table(columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{folder} could not be read: {error}") from error
    if table.num_rows == 0:
        raise InputError(f"{folder} must hold at least one row, got 0")
    return table


def require_columns(folder: Path, schema: pa.Schema, names: Iterable[str]) -> None:
    """Refuse a folder of that schema with InputError if it lacks one of the named columns."""
    for name in names:
        if name not in schema.names:
            raise InputError(f"{folder} must have a column {name}, got {', '.join(schema.names)}")


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

    Raises:
        InputError: a column is missing, of the wrong type, or null where it must not be.
    """
    nullable = nullable or {}
    for name, wanted in {**required, **nullable}.items():
        if name not in table.column_names:
            if name in required:
                raise InputError(
                    f"{where} must have a column {name}, got {', '.join(table.column_names)}"
                )
            continue
        column = table[name]
        if column.type != wanted:
            try:
                if not _same_kind(column.type, wanted):
                    raise pa.ArrowInvalid("another kind")
                column = column.cast(wanted, safe=True)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError(
                    f"{where} column {name} must be {wanted}, got {column.type}"
                ) from error
            table = table.set_column(table.column_names.index(name), name, column)
        if name in required and column.null_count:
            raise InputError(
                f"{where} column {name} must not be null, got {column.null_count} nulls"
            )
    return table


def _same_kind(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether both are integers, floats, text, bytes, or lists of the same kind."""
    if pa.types.is_dictionary(given):
        return _same_kind(given.value_type, wanted)
    if _is_list(given) and _is_list(wanted):
        return _same_kind(given.value_type, wanted.value_type)
    kinds = (pa.types.is_integer, pa.types.is_floating, _is_text, _is_bytes)
    # A column of nothing but nulls, or of empty lists, has no kind of its own yet.
    return pa.types.is_null(given) or any(kind(given) and kind(wanted) for kind in kinds)


def _is_list(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    )


def write_table(path: Path, table: pa.Table, row_group_rows: int = 10_000) -> None:
    """Write one Parquet file, whole or not at all."""
    with new_file(path) as aside:
        pq.write_table(table, aside, row_group_size=row_group_rows, compression="zstd")
