"""`items/`: the titles and pictures that phase one reads."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.data.images import MAX_IMAGE_PIXELS, Pictures
from torchrec_mm.data.parquet import BINARY, INT64, STRING, check_columns, open_dataset, read_table
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex, sort_unique

MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Texts:
    """The texts of a table's rows; blank ones count as missing.

    values: (N,) strings, None where missing.
    """

    values: list[str | None]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> np.ndarray:
        """(N,) bool, True where there is a text."""
        return np.array([value is not None for value in self.values], dtype=bool)

    def load(self, rows: np.ndarray) -> list[str]:
        """Some texts: (M,) int64 rows that are present -> M strings."""
        return [self.values[row] for row in rows]

    def lengths(self) -> np.ndarray:
        """(N,) int64 characters, 0 where missing; a batch of alike lengths needs less padding."""
        return np.array([len(value or "") for value in self.values], dtype=np.int64)

    def keys(self) -> list[str | None]:
        """What identifies each text's content, None where missing: the text itself."""
        return self.values


Content = Texts | Pictures


@dataclass(frozen=True)
class ItemContent:
    """What items look like and are called, sorted by id; row i of everything is the same item.

    item_ids: (N,) int64, strictly ascending. by_modality: "image" and/or "text", N rows each.
    """

    item_ids: np.ndarray
    by_modality: dict[str, Content]

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def index(self) -> IdIndex:
        return IdIndex(self.item_ids)


def read_item_content(
    data: Path,
    modalities: Collection[str],
    image_size: int,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> ItemContent:
    """Read ids and the wanted modalities of ``data/items/``; pictures stay encoded.

    Raises:
        InputError: missing folder or column, wrong type, duplicate item_id, a wanted modality
            that no item has, or an item with none of the two when both are wanted.
    """
    folder = data / "items"
    table = read_content_columns(
        folder,
        required={"item_id": INT64},
        text="title" if "text" in modalities else None,
        image="image" if "image" in modalities else None,
    )
    order = sort_unique(table["item_id"].to_numpy(), f"{folder} column item_id")
    item_ids = table["item_id"].to_numpy()[order]
    by_modality: dict[str, Content] = {}
    if "image" in modalities:
        by_modality["image"] = pictures_of(
            table, "image", folder, order, item_ids, image_size, max_image_pixels
        )
    if "text" in modalities:
        by_modality["text"] = texts_of(table, "title", order)
    check_content(by_modality, item_ids, folder, {"image": "image", "text": "title"}, "item_id")
    return ItemContent(item_ids, by_modality)


def read_content_columns(
    folder: Path, required: dict[str, pa.DataType], text: str | None, image: str | None
) -> pa.Table:
    """Read the required columns and those that exist of ``text``, ``image`` and ``image``_path."""
    nullable = {text: STRING} if text else {}
    nullable |= {image: BINARY, f"{image}_path": STRING} if image else {}
    present = set(open_dataset(folder).schema.names)
    columns = [*required, *(name for name in nullable if name in present)]
    return check_columns(read_table(folder, columns), folder, required, nullable)


def texts_of(table: pa.Table, column: str, order: np.ndarray) -> Texts:
    """A string column in the given order, blank as missing; all missing without the column."""
    if column not in table.column_names:
        return Texts([None] * len(order))
    blank = pc.equal(pc.utf8_trim_whitespace(table[column]), "")
    return Texts(pc.if_else(blank, None, table[column]).take(pa.array(order)).to_pylist())


def pictures_of(
    table: pa.Table,
    column: str,
    folder: Path,
    order: np.ndarray,
    ids: np.ndarray,
    size: int,
    max_pixels: int,
) -> Pictures:
    """The picture columns ``column`` and ``column``_path in the given order, still encoded."""
    encoded, paths = (
        table[name] if name in table.column_names else None for name in (column, f"{column}_path")
    )
    return Pictures(
        encoded, paths, folder, order, ids, f"{folder} {column}", size, max_pixels=max_pixels
    )


def check_content(
    by_modality: dict[str, Content],
    ids: np.ndarray,
    folder: Path,
    columns: dict[str, str],
    id_column: str,
) -> None:
    """Every modality must occur, and with both wanted each row must have at least one."""
    for modality, content in by_modality.items():
        if not content.present.any():
            raise InputError(
                f"{folder} column {columns[modality]} must hold a value for --modality "
                f"{modality}, got none in {len(ids)} rows"
            )
    if len(by_modality) == len(MODALITIES):
        empty = ~np.logical_or.reduce([content.present for content in by_modality.values()])
        if empty.any():
            raise InputError(
                f"{folder} columns {' and '.join(columns.values())} must not both be null, "
                f"got {id_column} {ids[empty][0]} ({empty.sum()} such rows)"
            )
