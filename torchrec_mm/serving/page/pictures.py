"""Titles and small pictures of items, by id alone: no client says where anything lies."""

import io
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image

from torchrec_mm.data.content.images import decode_image, upright_size
from torchrec_mm.data.contract.items import CONTENTS, read_rows
from torchrec_mm.errors import InputError

SIZE = 160  # of the longer side, in pixels
MOST_BYTES = 20 << 20  # of an encoded picture
MOST_PIXELS = 25_000_000
HELD = 500  # pictures as they are sent, 10 KB each


class Pictures:
    """Of the items in a folder like ``items/``."""

    def __init__(self, items: Path) -> None:
        self._items = items
        self._held: OrderedDict[int, bytes | None] = OrderedDict()
        self._alone = threading.Lock()  # large pictures one at a time

    def titles(self, item_ids: np.ndarray) -> dict[int, str]:
        """By item id; none of items that are not there or have none."""
        names = {name: kind for name, kind in CONTENTS.items() if name == "title"}
        rows = read_rows(self._items, np.unique(item_ids), names).to_pylist()
        return {row["item_id"]: row.get("title") or "" for row in rows}

    def __call__(self, item_id: int) -> bytes | None:
        """A JPEG; None for an item that is not there, or has no picture that can be read."""
        with self._alone:
            if item_id not in self._held:
                self._held[item_id] = self._made(item_id)
            self._held.move_to_end(item_id)
            if len(self._held) > HELD:
                self._held.popitem(last=False)
            return self._held[item_id]

    def _made(self, item_id: int) -> bytes | None:
        rows = read_rows(self._items, np.array([item_id]), CONTENTS).to_pylist()
        if not rows:
            return None
        encoded, path = rows[0].get("image"), rows[0].get("image_path")
        source = encoded or (self._items / path if path else None)
        if source is None:
            return None
        try:
            return small(source)
        except (InputError, OSError):
            return None


def small(source: bytes | Path) -> bytes:
    """A JPEG of a picture in its own proportions; its size is checked before it is decoded.

    Raises:
        InputError: no picture, or too large a one. OSError: its file cannot be read.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"picture must have at most {MOST_BYTES} bytes, got {size}")
    square = decode_image(source, SIZE, "picture", max_pixels=MOST_PIXELS)
    width, height = upright_size(source)
    scale = SIZE / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    out = io.BytesIO()
    Image.fromarray(square).resize(shape).save(out, "JPEG", quality=82)
    return out.getvalue()
