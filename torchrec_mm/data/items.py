"""`items/`: what is known of every item besides its picture and title."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.data.parquet import INT64, check_columns, open_dataset, read_table
from torchrec_mm.ids import IdIndex, sort_unique
from torchrec_mm.tables.names import refuse_lookalikes
from torchrec_mm.tables.seconds import check_one_clock, check_seconds

CONTENT_COLUMNS = frozenset({"item_id", "title", "image", "image_path", "created_at"})


@dataclass(frozen=True)
class ItemCatalogue:
    """All items, sorted by id; row i of every array is the same item.

    item_ids: (N,) int64, strictly ascending.
    created_at: (N,) int64 seconds, ``UNKNOWN_TIME`` where not known; None without the column.
    attributes: categorical attributes by column name, each (N,) int64, any value.
    """

    UNKNOWN_TIME = np.iinfo(np.int64).min

    item_ids: np.ndarray
    created_at: np.ndarray | None
    attributes: Mapping[str, np.ndarray]

    @property
    def index(self) -> IdIndex:
        return IdIndex(self.item_ids)

    def check_clock(self, where: Path | str, first: int, last: int) -> None:
        """Refuse times of another clock than that of requests from ``first`` to ``last``.

        ``where`` names the items. See ``tables.seconds.check_one_clock``.
        """
        if self.created_at is not None:
            known = self.created_at[self.created_at != self.UNKNOWN_TIME]
            check_one_clock(where, known, first, last)

    def __len__(self) -> int:
        return len(self.item_ids)


def read_items(data: Path) -> ItemCatalogue:
    """The catalogue of a data folder: ``read_catalogue`` of its ``items/``."""
    return read_catalogue(data / "items")


def read_catalogue(folder: Path) -> ItemCatalogue:
    """Read a folder in the layout of ``items/``, without pictures and titles.

    Raises:
        InputError: missing folder or column, wrong type or unit, duplicate item_id.
    """
    schema = open_dataset(folder).schema
    refuse_lookalikes(folder, schema.names, CONTENT_COLUMNS)
    attributes = attribute_columns(schema)
    has_time = "created_at" in schema.names
    columns = ["item_id", *attributes] + (["created_at"] if has_time else [])
    table = check_columns(
        read_table(folder, columns),
        folder,
        required={"item_id": INT64} | dict.fromkeys(attributes, INT64),
        nullable={"created_at": INT64},
    )
    item_ids = table["item_id"].to_numpy()
    order = sort_unique(item_ids, f"{folder} column item_id")
    created_at = None
    if has_time:
        check_seconds(folder, "created_at", table["created_at"])
        created_at = table["created_at"].fill_null(ItemCatalogue.UNKNOWN_TIME).to_numpy()[order]
    return ItemCatalogue(
        item_ids[order],
        created_at,
        {name: table[name].to_numpy()[order] for name in attributes},
    )


def attribute_columns(schema: pa.Schema) -> list[str]:
    """Names of the categorical attributes among the columns of ``items/``."""
    return [
        field.name
        for field in schema
        if field.name not in CONTENT_COLUMNS and pa.types.is_integer(field.type)
    ]
