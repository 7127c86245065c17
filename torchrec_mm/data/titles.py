"""What some items are called, without reading the others' pictures."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from torchrec_mm.data.parquet import INT64, STRING, check_columns, open_dataset


def read_titles(data: Path, item_ids: np.ndarray) -> dict[int, str]:
    """Titles of the items that have one, by item_id; only their rows are kept.

    Args:
        data: folder that holds items/.
        item_ids: (n,) int64.

    Raises:
        InputError: ``data/items`` is missing or not what it should be.
    """
    folder = data / "items"
    dataset = open_dataset(folder)
    columns = [name for name in ("item_id", "title") if name in dataset.schema.names]
    table = dataset.to_table(columns, filter=ds.field("item_id").isin(pa.array(item_ids)))
    table = check_columns(table, folder, {"item_id": INT64}, {"title": STRING})
    if "title" not in table.column_names:
        return {}
    rows = zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item_id: title for item_id, title in rows if title}
