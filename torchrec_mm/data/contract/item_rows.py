"""Some rows of `items/`, and titles of some items, without reading what the others hold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.parquet import INT64, STRING, check_columns
from torchrec_mm.columns.parquet_folder import concat_files
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.contract.items import ITEM_ID, open_items


def read_rows(folder: Path, item_ids: np.ndarray, nullable: Mapping[str, pa.DataType]) -> pa.Table:
    """item_id and the columns ``nullable`` that are there, of those items that are there.

    Of row groups without one of the items, only the ids are read.

    Args:
        folder: in the layout of ``items/``. item_ids: (n,) int64.

    Raises:
        InputError: a missing folder, an unreadable file, a column of the wrong type.
    """
    items = open_items(folder)
    items.check(ITEM_ID, nullable)
    types = ITEM_ID | {name: nullable[name] for name in nullable if name in items.names}
    wanted = pa.array(item_ids, INT64)
    found = [pa.schema(types).empty_table()]
    for file in items.files:
        for table, where in read_chunks(file, list(types), _groups_with(file, wanted)):
            table = check_columns(table, where, ITEM_ID, nullable).select(list(types))
            found.append(table.filter(pc.is_in(table["item_id"], wanted)))
    return concat_files(found)


def read_titles(data: Path, item_ids: np.ndarray) -> dict[int, str]:
    """Titles of the items that have one, by item_id; only their rows are kept.

    Args:
        data: folder that holds items/.
        item_ids: (n,) int64.

    Raises:
        InputError: ``data/items`` is missing or not what it should be.
    """
    table = read_rows(data / "items", item_ids, {"title": STRING})
    if "title" not in table.column_names:
        return {}
    rows = zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item_id: title for item_id, title in rows if title}


def _groups_with(file: Path, wanted: pa.Array) -> list[int]:
    """Row groups of the file that hold one of the wanted ids."""
    with input_errors(file), pq.ParquetFile(file) as parquet:
        ids = [
            parquet.read_row_group(group, ["item_id"])["item_id"].cast(INT64)
            for group in range(parquet.num_row_groups)
        ]
        return [group for group, each in enumerate(ids) if pc.any(pc.is_in(each, wanted)).as_py()]
