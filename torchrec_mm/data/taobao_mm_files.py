"""The tables of TAOBAO-MM: names, columns, files.

``{train,test}_samples``, ``{train,test}_user_features``, ``item_features`` and
``scl_embedding_int8_p90``, each one Parquet file, several whose names begin like that, or a folder.
Ids are signed 64-bit hashes; 0 stands for "not known".

Source: TAOBAO-MM, published with MUSE (arXiv 2512.07216), github.com/alimama-tech/MUSE.
"""

from pathlib import Path

from torchrec_mm.data.parquet import INT8_LIST, INT64, INT64_LIST, parquet_files
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


def table_files(data: Path, name: str) -> list[Path]:
    """The Parquet files of one table, in name order.

    Raises:
        InputError: there is none.
    """
    files: list[Path] = []
    for entry in sorted(data.glob(f"{name}*")):
        if entry.is_dir():
            files += parquet_files(entry)
        elif entry.suffix == ".parquet":
            files.append(entry)
    if not files:
        raise InputError(f"{data} must hold {name}*.parquet or a folder {name}, found neither")
    return files
