"""`searches/`: what was looked for, what was bought, what was only clicked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.data.images import MAX_IMAGE_PIXELS
from torchrec_mm.data.item_content import (
    Content,
    ItemContent,
    check_content,
    pictures_of,
    read_content_columns,
    texts_of,
)
from torchrec_mm.data.parquet import INT64, INT64_LIST
from torchrec_mm.errors import InputError
from torchrec_mm.ids import sort_unique

MAX_HARD_NEGATIVES = 8


@dataclass(frozen=True)
class Searches:
    """Searches, oldest first; row i of everything is the same search.

    search_ids: (S,) int64, unique; timestamp ties are ordered by it.
    by_modality: query contents, "image" and/or "text", S rows each.
    purchased: (S,) int64 row of the purchased item in the catalogue.
    hard: (S, H) int64 rows of the first H <= 8 items clicked but not bought, -1 in empty slots.
    """

    search_ids: np.ndarray
    by_modality: dict[str, Content]
    purchased: np.ndarray
    hard: np.ndarray

    def __len__(self) -> int:
        return len(self.search_ids)

    def split(self, holdout: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows held out: the last share in time, at least one.

        Args:
            holdout: share of the searches, in (0, 1).

        Raises:
            InputError: no search is left on one of the two sides.
        """
        num_held_out = max(1, round(holdout * len(self)))
        if num_held_out >= len(self):
            raise InputError(
                f"holdout must leave a search to train on, got {holdout} of {len(self)} searches"
            )
        return np.split(np.arange(len(self)), [len(self) - num_held_out])


def read_searches(
    data: Path, items: ItemContent, image_size: int, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> Searches:
    """Read ``data/searches/`` for the modalities that ``items`` was read with.

    Raises:
        InputError: missing folder or column, wrong type, duplicate search_id, a purchased or
            clicked item that is not in items/, a search with neither text nor picture.
    """
    folder = data / "searches"
    table = read_content_columns(
        folder,
        required={
            "search_id": INT64,
            "timestamp": INT64,
            "purchased_item_id": INT64,
            "clicked_item_ids": INT64_LIST,
        },
        text="query_text" if "text" in items.by_modality else None,
        image="query_image" if "image" in items.by_modality else None,
    )
    search_ids = table["search_id"].to_numpy()
    sort_unique(search_ids, f"{folder} column search_id")
    order = np.lexsort((search_ids, table["timestamp"].to_numpy()))
    by_modality: dict[str, Content] = {}
    if "image" in items.by_modality:
        by_modality["image"] = pictures_of(
            table, "query_image", folder, order, search_ids[order], image_size, max_image_pixels
        )
    if "text" in items.by_modality:
        by_modality["text"] = texts_of(table, "query_text", order)
    check_content(
        by_modality,
        search_ids[order],
        folder,
        {"image": "query_image", "text": "query_text"},
        "search_id",
    )
    purchased = _known_rows(
        items, table["purchased_item_id"].to_numpy(), folder, "purchased_item_id"
    )
    hard = _hard_rows(items, table["clicked_item_ids"], purchased, folder)
    return Searches(search_ids[order], by_modality, purchased[order], hard[order])


def _known_rows(items: ItemContent, item_ids: np.ndarray, folder: Path, column: str) -> np.ndarray:
    rows = items.index.rows(item_ids)
    if (rows < 0).any():
        raise InputError(
            f"{folder} column {column} must be in items/, got {item_ids[rows < 0][0]} "
            f"({(rows < 0).sum()} such values)"
        )
    return rows


def _hard_rows(
    items: ItemContent, clicked: pa.ChunkedArray, purchased: np.ndarray, folder: Path
) -> np.ndarray:
    """(S, H) catalogue rows, -1 padded; the purchased item is never its own hard negative."""
    lists = clicked.combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    values = lists.flatten()
    if values.null_count:
        raise InputError(f"{folder} column clicked_item_ids must not hold nulls")
    rows = _known_rows(items, values.to_numpy(), folder, "clicked_item_ids")
    search = np.repeat(np.arange(len(lengths)), lengths)
    bought = rows == purchased[search]
    search, rows = search[~bought], rows[~bought]
    first = np.searchsorted(search, search)  # where the search's own list starts
    slot = np.arange(len(search)) - first
    kept = slot < MAX_HARD_NEGATIVES
    width = int(slot[kept].max(initial=-1)) + 1
    hard = np.full((len(lengths), width), -1, dtype=np.int64)
    hard[search[kept], slot[kept]] = rows[kept]
    return hard
