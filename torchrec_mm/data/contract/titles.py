"""What some items are called, without reading the others' pictures."""

from pathlib import Path

import numpy as np

from torchrec_mm.columns.parquet import STRING
from torchrec_mm.data.contract.item_rows import read_rows


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
