"""`features.yaml` of a folder that is made: the one given, or one that says nothing yet.

The latter is all in comments: what each column is taken for, below two signs, and below one the
line that says otherwise.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.contract.describe import folder_columns
from torchrec_mm.data.contract.feature_settings import FILE
from torchrec_mm.data.contract.features import Bag, Categorical, Feature, Numeric
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES
from torchrec_mm.errors import InputError

VALUES = ("yes", "no", "on", "off", "true", "false", "null")  # of YAML, when they are not quoted
HEAD = """\
## What each column is taken for; `apps.doctor --data` counts what it holds. A line below one # that
## loses it says otherwise. A column that is to be neither read nor refused:
#ignore: [{names}]
"""


def put_settings(data: Path, given: Path | None) -> None:
    """Write the file beside ``items/`` and ``requests/`` of the folder ``data``.

    Args:
        data: folder in the layout of the data contract. given: to be copied; None: there is none.

    Raises:
        InputError: a column that can be no feature, or a setting of none; ``given`` is named.
    """
    path = data / FILE
    if given is None:
        path.write_text(commented_settings(data), encoding="utf-8")
        return
    with input_errors(given, "could not be copied"):
        shutil.copyfile(given, path)
    try:
        folder_columns(data)
    except InputError as error:
        raise InputError(str(error).replace(str(path), str(given))) from error


def commented_settings(data: Path) -> str:
    """The file for a folder, with nothing said; InputErrors of ``folder_columns``."""
    found = folder_columns(data)
    columns = {"items": found.items, "requests": found.requests.all}
    names = [name for of_folder in columns.values() for name in of_folder]
    lines = [HEAD.format(names=", ".join(map(_quoted, names[:1])))]
    for folder, of_folder in columns.items():
        lines += [_lines(folder, name, column) for name, column in of_folder.items()]
    return "\n".join(lines)


def _lines(folder: str, name: str, column: Feature) -> str:
    what = {Categorical: "category", Numeric: "number", Bag: "bag"}[type(column)]
    kind = str(column.kind).replace("item: ", "")
    said = "\n".join(f"#{_quoted(name)}: {each}" for each in _settings(name, column))
    return f"## {folder}/ {_quoted(name)}: {what}, {kind}\n{said}\n"


def _settings(name: str, column: Feature) -> Iterator[str]:
    """What could be said of a column: the first may, the others in its place."""
    if isinstance(column, Bag):
        yield _flow({"pooling": "sum"})
        yield _flow({"min_count": 5})
        return
    if isinstance(column, Numeric):
        yield _flow({"transform": "log1p"})
        return
    yield _flow({"min_count": 5})
    kind = column.kind
    if INT64 in (kind, kind.value_type if pa.types.is_list(kind) else None):
        yield _flow({"kind": "numeric", "transform": "log1p"})
    if pa.types.is_list(kind) and not name.startswith(OF_CANDIDATES):
        yield _flow({"kind": "bag"})


def _flow(settings: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in settings.items()) + "}"


def _quoted(name: str) -> str:
    """A name as YAML reads it back, in one line."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) and name.lower() not in VALUES
    return name if plain else json.dumps(name, ensure_ascii=False)
