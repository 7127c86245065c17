"""items/ and searches/ from rows as plain dicts, in as many files and row groups as wanted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ITEM_TYPES = {
    "item_id": pa.int64(),
    "title": pa.string(),
    "image": pa.binary(),
    "image_path": pa.string(),
    "category": pa.int64(),
}
SEARCH_TYPES = {
    "search_id": pa.int64(),
    "user_id": pa.int64(),
    "timestamp": pa.int64(),
    "query_text": pa.string(),
    "query_image": pa.binary(),
    "query_image_path": pa.string(),
    "purchased_item_id": pa.int64(),
    "clicked_item_ids": pa.list_(pa.int64()),
}
ITEMS = [
    {"item_id": 30, "title": "c", "image": b"3", "category": 7},
    {"item_id": -5, "title": "a", "image": b"1", "category": 8},
    {"item_id": 7, "title": "b", "image": b"2", "category": 9},
]
PAGE_ROWS = 10  # a page of large values has no fewer

SEARCH = {
    "user_id": 1,
    "query_text": "late",
    "query_image": b"4",
    "purchased_item_id": 7,
    "clicked_item_ids": [30],
}
SEARCHES = [
    SEARCH | {"search_id": 5, "timestamp": 9},
    SEARCH | {"search_id": 4, "timestamp": 7, "query_text": "early too", "clicked_item_ids": []},
    SEARCH | {"search_id": 3, "timestamp": 7, "query_text": "early", "clicked_item_ids": [30, -5]},
]


def write_data(
    data: Path,
    items: list[dict[str, Any]] = ITEMS,
    searches: list[dict[str, Any]] = SEARCHES,
    files: int = 1,
    row_group_rows: int | None = None,
    **other_columns: list[Any] | pa.Array | None,
) -> Path:
    """Write both folders; row i goes to file i modulo ``files``.

    other_columns: in place of the column of the same name, None for no such column.
    """
    for folder, types, rows in (("items", ITEM_TYPES, items), ("searches", SEARCH_TYPES, searches)):
        columns = {n: pa.array([row.get(n) for row in rows], kind) for n, kind in types.items()}
        columns |= {name: other for name, other in other_columns.items() if name in columns}
        columns = {name: column for name, column in columns.items() if column is not None}
        table = pa.table(columns)
        (data / folder).mkdir(parents=True)
        for file in range(files):
            part = table.take(np.arange(file, table.num_rows, files))
            path = data / folder / f"part-{file}.parquet"
            pq.write_table(part, path, row_group_rows, write_batch_size=PAGE_ROWS)
    return data
