"""The tables of TAOBAO-MM: names, columns, files.

``{train,test}_samples``, ``{train,test}_user_features``, ``item_features`` and
``scl_embedding_int8_p90``, each one Parquet file, numbered parts of it, or a folder. No name begins
with another.
Ids are signed 64-bit hashes; 0 stands for "not known".

Source: TAOBAO-MM, published with MUSE (arXiv 2512.07216), github.com/alimama-tech/MUSE.
"""

import os
import re
from pathlib import Path

from torchrec_mm.columns.files import data_files
from torchrec_mm.columns.parquet import INT8_LIST, INT64, INT64_LIST
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.errors import InputError

MISSING = 0
LABEL, USER, ITEM, CATEGORY = "label_0", "129_1", "205", "206"
PROFILE = ("130_1", "130_2", "130_3", "130_4", "130_5")
PAST_ITEMS, PAST_CATEGORIES = "150_2_180", "151_2_180"
ITEM_ATTRIBUTES = {CATEGORY: "category", "213": "213", "214": "214"}
VECTORS, VECTOR = "scl_embedding_int8_p90", "205_c"

SAMPLE_COLUMNS = {LABEL: INT8_LIST, USER: INT64, ITEM: INT64}
USER_COLUMNS = dict.fromkeys((USER, *PROFILE), INT64) | {
    PAST_ITEMS: INT64_LIST,
    PAST_CATEGORIES: INT64_LIST,
}
ITEM_COLUMNS = dict.fromkeys((ITEM, *ITEM_ATTRIBUTES), INT64)


PART = re.compile(r"(?P<mark>[-_.])(?P<number>\d+)(-of-(?P<of>\d+))?\.parquet")


def table_files(data: Path, name: str) -> list[Path]:
    """The Parquet files of one table, in name order.

    Raises:
        InputError: there is none, or something else begins with the table's name, as a subset or a
            copy would, which must not count twice.
    """
    with input_errors(data, "must be a folder of the tables of TAOBAO-MM"):
        found = sorted(entry for entry in os.listdir(data) if entry.startswith(name))
    if found == [name]:
        return data_files(data / name)
    if found != [f"{name}.parquet"] and not _are_parts(found, name):
        raise InputError(
            f"{data} must hold {name}.parquet or its numbered parts or a folder {name}, and "
            f"nothing else that begins like it, got {', '.join(found[:5]) or 'none of them'}"
        )
    return [data / entry for entry in found]


def _are_parts(found: list[str], name: str) -> bool:
    """Whether all are parts of one table, ``NAME-0.parquet`` or ``NAME_0-of-2.parquet`` and on."""
    parts = [part for entry in found if (part := PART.fullmatch(entry.removeprefix(name)))]
    if not parts or len(parts) < len(found):
        return False
    forms = {(part["mark"], part["of"]) for part in parts}
    numbers = {int(part["number"]) for part in parts}
    of = forms.pop()[1]
    return not forms and len(numbers) == len(parts) and (of is None or int(of) == len(parts))
