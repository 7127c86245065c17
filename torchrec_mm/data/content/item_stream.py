"""`items/` a part at a time, in the order of its files: for more items than memory holds.

`packed.py` is the other reader of contents: at random, from a copy. Here nothing is copied, and
parts follow each other. Shape letters: N items of all files, n items of a part.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.data.content.content_columns import as_sources, picture_bytes, text_strings
from torchrec_mm.data.content.item_parts import ItemPart, parts_of
from torchrec_mm.data.contract.items import CONTENTS, ITEM_ID, open_items
from torchrec_mm.errors import InputError
from torchrec_mm.ids import sort_unique

COLUMNS = {"image": ("image", "image_path"), "text": ("title",)}


@dataclass(frozen=True)
class ItemRows:
    """n items in the order of their file.

    item_ids: (n,) int64. pictures: n, encoded bytes or the path of a file each, None where missing;
    texts: n strings that are not blank, likewise. Of a modality that is not wanted there is None.
    """

    item_ids: np.ndarray
    pictures: list[bytes | Path | None] | None
    texts: list[str | None] | None

    def __len__(self) -> int:
        return len(self.item_ids)

    def present(self, modality: str) -> np.ndarray:
        """(n,) bool, True where the item has it."""
        values = self.pictures if modality == "image" else self.texts
        assert values is not None  # asked for of a wanted one alone
        return np.array([value is not None for value in values], dtype=bool)


class ItemStream:
    """The wanted contents of ``data/items/``, read part by part.

    Reading the part after the one read before goes on in the file; row groups may exceed memory.

    num_items: N. parts: all of them, N rows together. fingerprint: names the files, by name, size
    and time of change, and how they are cut; pictures given by path are not looked at.
    """

    def __init__(self, data: Path, modalities: Collection[str]) -> None:
        """Read ids and footers; InputError for no folder or column, a wrong type, a bad item_id."""
        self.folder = data / "items"
        items = open_items(self.folder)
        self.modalities = tuple(modalities)
        self._columns = ["item_id"]
        for modality in self.modalities:
            there = [name for name in COLUMNS[modality] if name in items.names]
            if not there:
                raise InputError(
                    f"{self.folder} must have a column {' or '.join(COLUMNS[modality])} for "
                    f"modality {modality}, got {', '.join(items.names)}"
                )
            self._columns += there
        items.check(ITEM_ID, {name: CONTENTS[name] for name in self._columns[1:]})
        table = items.read(ITEM_ID)
        sort_unique(table["item_id"].to_numpy(), f"{self.folder} column item_id")
        self.num_items = table.num_rows
        self.parts = parts_of(items.files)
        self.fingerprint = _fingerprint(items.files, self.parts)
        self._cursor: _Cursor | None = None

    def read(self, part: ItemPart) -> ItemRows:
        """The items of one of ``parts``; InputError for an unreadable file or a wrong type."""
        if self._cursor is None or not self._cursor.reaches(part):
            self._cursor = _Cursor(part, self._columns)
        table = self._cursor.take(part.start, part.stop)
        where = f"{part.file} row groups {part.groups[0]} to {part.groups[-1]}"
        table = check_columns(table, where, ITEM_ID, CONTENTS)
        pictures = texts = None
        if "image" in self.modalities:
            images, is_path = picture_bytes(table, "image", self.folder)
            pictures = as_sources(images.to_pylist(), is_path)
        if "text" in self.modalities:
            texts = text_strings(table, "title").to_pylist()
        return ItemRows(table["item_id"].to_numpy(), pictures, texts)


class _Cursor:
    """The rows of some row groups of a file, forwards only."""

    def __init__(self, part: ItemPart, columns: list[str]) -> None:
        self._file, self._groups = part.file, part.groups
        self._chunks = read_chunks(part.file, columns, part.groups)
        self._held = pa.table({})
        self._at = 0  # row that ``_held`` begins with

    def reaches(self, part: ItemPart) -> bool:
        """Whether the part lies ahead."""
        return (part.file, part.groups) == (self._file, self._groups) and part.start >= self._at

    def take(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop); those before them are dropped."""
        taken = []
        while self._at < stop:
            if not self._held.num_rows:
                self._held, _ = next(self._chunks)
            rows = self._held[max(0, start - self._at) : stop - self._at]
            if rows.num_rows:
                taken.append(rows)
            passed = min(self._held.num_rows, stop - self._at)
            self._held, self._at = self._held[passed:], self._at + passed
        return pa.concat_tables(taken)


def _fingerprint(files: list[Path], parts: list[ItemPart]) -> str:
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for part in parts:
        digest.update(f"{part.file.name} {part.groups} {part.start} {part.stop}\n".encode())
    return digest.hexdigest()[:16]
