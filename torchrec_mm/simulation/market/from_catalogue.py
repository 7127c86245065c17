"""A catalogue of real items for the market: its integer columns become the hidden attributes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.data.content.content_columns import as_sources, picture_bytes, text_strings
from torchrec_mm.data.contract.items import CONTENTS, ITEM_ID, attribute_columns, open_items
from torchrec_mm.errors import InputError
from torchrec_mm.ids import sort_unique
from torchrec_mm.simulation.market.catalogue import Catalogue, births


def read_catalogue(data: Path, category_column: str, days: int, seed: int) -> Catalogue:
    """Read ``data/items/`` whole and give every item a simulated date of birth.

    Users' tastes are over all integer columns; only ``category_column`` (empty: the first of
    them) is handed on as an attribute column, so that the rest can be learned from looks and
    titles alone. Pictures and titles are kept as they are. An existing ``created_at`` is replaced:
    the market runs in simulated time.

    Raises:
        InputError: missing folder or column, duplicate item_id, unreadable image_path, an item
            with neither title nor picture.
    """
    folder = data / "items"
    items = open_items(folder)
    names = attribute_columns(items)
    if not names:
        raise InputError(f"{folder} must have an int64 attribute column, got none")
    category = category_column or names[0]
    if category not in names:
        rule = f"category_column must be one of {', '.join(names)}"
        raise InputError(f"{rule}, got {category_column}")
    table = items.read(ITEM_ID | dict.fromkeys(names, INT64), CONTENTS)
    rng = np.random.default_rng([seed, 0])
    table = table.take(sort_unique(table["item_id"].to_numpy(), f"{folder} column item_id"))
    table = table.take(rng.permutation(table.num_rows))
    pictures, titles = _pictures(table, folder), text_strings(table, "title").to_pylist()
    _check_content(table, pictures, titles, folder)
    return Catalogue(
        item_ids=table["item_id"].to_numpy(),
        created_at=births(table.num_rows, days, rng),
        attributes=np.stack(
            [np.unique(table[name].to_numpy(), return_inverse=True)[1] for name in names], axis=1
        ),
        columns={category: table[category].to_numpy()},
        titles=titles,
        pictures=pictures,
        has_picture=np.array([picture is not None for picture in pictures]),
    )


def _check_content(
    table: pa.Table, pictures: list[bytes | None], titles: list[str | None], folder: Path
) -> None:
    for item_id, picture, title in zip(table["item_id"].to_pylist(), pictures, titles, strict=True):
        if picture is None and title is None:
            rule = f"{folder} columns title and image must not both be null"
            raise InputError(f"{rule}, got item_id {item_id}")


def _pictures(table: pa.Table, folder: Path) -> list[bytes | None]:
    images, is_path = picture_bytes(table, "image", folder)
    sources = as_sources(images.to_pylist(), is_path)
    return [_read(source) if isinstance(source, Path) else source for source in sources]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"items column image_path must name readable files: {error}") from error
