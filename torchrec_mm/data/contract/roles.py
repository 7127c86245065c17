"""What the columns are that the data contract does not name: all files decide, never one."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    known: Mapping[str, Sequence[pa.DataType]] | None = None,
) -> dict[str, pa.DataType]:
    """The promised type of every column that is not ``named``, in the order they are met.

    A column of nothing but nulls, or of lists of them, in one file is what the others say, and the
    first that it can be where none says more.

    Args:
        folders: all that must agree; a column that only one of them has is among the columns.
        named: columns with a meaning of their own. types: what a further column may be.
        known: the further columns of a model that is there already, and what each may be: others
            are left out, and a warning names them. None: none is left out.

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
    found: dict[str, tuple[Sequence[pa.DataType], Path]] = {}
    for file, field in fields:
        kinds = _kinds(field, file, types if known is None else known[field.name])
        before, by = found.get(field.name, (kinds, file))
        both = [kind for kind in before if kind in kinds]
        if not both:
            rule = f"{file} column {field.name} must be {_alternatives(before)} as in {by}"
            raise InputError(f"{rule}, got {field.type}")
        found[field.name] = (both, by if len(both) == len(before) else file)
    return {name: kinds[0] for name, (kinds, _) in found.items()}


def _kinds(field: pa.Field, file: Path, types: Sequence[pa.DataType]) -> list[pa.DataType]:
    """Those of ``types`` that a column can be: at least one."""
    if field.name.startswith(PANDAS_INDEX):
        rule = f"{file} column {field.name} must be left out, it is pandas' index"
        raise InputError(f"{rule}: to_parquet(..., index=False)")
    kinds = [kind for kind in types if same_kind(field.type, kind)]
    if not kinds:
        wanted = f"be {_alternatives(types)}, or" if types else "be"
        raise InputError(f"{file} column {field.name} must {wanted} left out, got {field.type}")
    return kinds


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


def _alternatives(kinds: Iterable[pa.DataType]) -> str:
    return " or ".join(str(kind).replace("item: ", "") for kind in kinds)
