"""What the columns are that the data contract does not name: all files decide, never one."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.names import refuse_lookalikes
from torchrec_mm.columns.parquet import same_kind
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.errors import InputError

logger = logging.getLogger(__name__)

PANDAS_INDEX = "__index_level_"


def further_columns(
    folders: Iterable[ParquetFolder],
    named: Collection[str],
    types: Sequence[pa.DataType],
    known: Collection[str] | None = None,
) -> dict[str, pa.DataType]:
    """The promised type of every column that is not ``named``, in the order they are met.

    A column of nothing but nulls in one file is what the others say.

    Args:
        folders: all that must agree; a column that only one of them has is among the columns.
        named: columns with a meaning of their own. types: what a further column may be.
        known: the further columns of a model that is there already: others are left out, and a
            warning names them. None: none is left out.

    Raises:
        InputError: a column called like a named one but for case or spaces, one that is none of
            the types in some file, or one of them in one file and another in the next.
    """
    footers = [footer for folder in folders for footer in folder.footers]
    for footer in footers:
        refuse_lookalikes(footer.file, footer.schema.names, named)
    fields = [
        (footer.file, field)
        for footer in footers
        for field in footer.schema
        if field.name not in named
    ]
    if known is not None:
        _warn_of_others(fields, known)
        fields = [(file, field) for file, field in fields if field.name in known]
    types_found: dict[str, tuple[pa.DataType, Path]] = {}
    for file, field in fields:
        kind = _kind(field, file, types)
        if pa.types.is_null(field.type):
            continue
        first, by = types_found.setdefault(field.name, (kind, file))
        if kind != first:
            rule = f"{file} column {field.name} must be {_words(first)} as in {by}"
            raise InputError(f"{rule}, got {field.type}")
    return {field.name: types_found.get(field.name, (types[0],))[0] for _, field in fields}


def _kind(field: pa.Field, file: Path, types: Sequence[pa.DataType]) -> pa.DataType:
    """The first of ``types`` that a column can be."""
    if field.name.startswith(PANDAS_INDEX):
        rule = f"{file} column {field.name} must be left out, it is pandas' index"
        raise InputError(f"{rule}: to_parquet(..., index=False)")
    for kind in types:
        if same_kind(field.type, kind):
            return kind
    wanted = f"be {' or '.join(map(_words, types))}, or" if types else "be"
    raise InputError(f"{file} column {field.name} must {wanted} left out, got {field.type}")


def _warn_of_others(fields: Iterable[tuple[Path, pa.Field]], known: Collection[str]) -> None:
    others: dict[Path, dict[str, None]] = defaultdict(dict)
    for file, field in fields:
        if field.name not in known:
            others[file.parent][field.name] = None
    for folder, names in others.items():
        logger.warning(
            "%s columns that the model was not trained with are not used: %s",
            folder,
            ", ".join(names),
        )


def _words(kind: pa.DataType) -> str:
    return str(kind).replace("item: ", "")
