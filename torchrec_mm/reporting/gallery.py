"""Pictures of a few items beside their nearest neighbours, to judge vectors by eye."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from torchrec_mm.data.content.images import decode_image, upright_size
from torchrec_mm.data.contract.items import CONTENTS, ITEM_ID, open_items, read_rows
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex
from torchrec_mm.item_vectors.neighbours import Neighbours, neighbours_of
from torchrec_mm.item_vectors.store import ItemVectors

QUERY_ITEMS = 8
NEIGHBOURS = 5
THUMBNAIL = 112


@dataclass(frozen=True)
class Tile:
    """One item as the page shows it.

    picture: data URI, None without a readable picture. cosine: to the query item, None for itself.
    """

    item_id: int
    title: str
    picture: str | None
    cosine: float | None


@dataclass(frozen=True)
class GalleryRow:
    """One query item and its neighbours, nearest first, by name of the vectors."""

    item: Tile
    neighbours: dict[str, list[Tile]]


def gallery(data: Path, vectors: dict[str, ItemVectors]) -> list[GalleryRow]:
    """Neighbours of ``QUERY_ITEMS`` evenly spread items by each set; InputError for bad items/."""
    folder = data / "items"
    queries = _spread_ids(folder, list(vectors.values()))
    found = {
        name: neighbours_of(Neighbours(each), queries, NEIGHBOURS).named(each.item_ids)
        for name, each in vectors.items()
    }
    shown = [item_id for rows in found.values() for row in rows for item_id, _ in row]
    wanted = np.unique(np.concatenate([queries, np.array(shown, dtype=np.int64)]))
    tiles = _read_tiles(folder, wanted)

    def tile(item_id: int, cosine: float | None = None) -> Tile:
        title, picture = tiles.get(item_id, ("", None))
        return Tile(item_id, title, picture, cosine)

    return [
        GalleryRow(
            tile(int(query)),
            {name: [tile(*neighbour) for neighbour in rows[row]] for name, rows in found.items()},
        )
        for row, query in enumerate(queries)
    ]


def _spread_ids(folder: Path, vectors: Sequence[ItemVectors]) -> np.ndarray:
    """(Q,) ids of catalogue items that every vector set knows."""
    ids = np.sort(open_items(folder).read(ITEM_ID)["item_id"].to_numpy())
    for each in vectors:
        ids = ids[IdIndex(each.item_ids).rows(ids) >= 0]
    places = (np.arange(QUERY_ITEMS) + 0.5) / QUERY_ITEMS * len(ids)
    return ids[np.unique(places.astype(np.int64))] if len(ids) else ids


def _read_tiles(folder: Path, item_ids: np.ndarray) -> dict[int, tuple[str, str | None]]:
    """Title and picture of some items; only their rows are read."""
    return {
        row["item_id"]: (row.get("title") or "", _thumbnail(row, folder))
        for row in read_rows(folder, item_ids, CONTENTS).to_pylist()
    }


def _thumbnail(row: dict, folder: Path) -> str | None:
    """A small JPEG as a data URI in the picture's own proportions; None when there is none."""
    source = row.get("image") or (row.get("image_path") and folder / row["image_path"])
    if not source:
        return None
    try:
        square = decode_image(source, THUMBNAIL, f"{folder} image of item_id {row['item_id']}")
    except InputError:
        return None
    width, height = upright_size(source)
    scale = THUMBNAIL / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    encoded = io.BytesIO()
    Image.fromarray(square).resize(size).save(encoded, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
