"""`items/` a part at a time, in the order of its files: for more items than memory holds.

Shape letters: N items of all files, n items of a part.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.contract.item_parts import ItemPart, parts_of
from torchrec_mm.data.contract.items import CONTENTS, ITEM_ID, open_items
from torchrec_mm.errors import InputError
from torchrec_mm.ids import sort_unique

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20
COLUMNS = {"image": ("image", "image_path"), "text": ("title",)}


@dataclass(frozen=True)
class ItemRows:
    """n items in the order of their file.

    item_ids: (n,) int64. contents: n values by modality, None where missing; an "image" is encoded
    bytes or the path of a file, a "text" a string that is not blank.
    """

    item_ids: np.ndarray
    contents: dict[str, list[bytes | Path | None] | list[str | None]]

    def __len__(self) -> int:
        return len(self.item_ids)

    def present(self, modality: str) -> np.ndarray:
        """(n,) bool, True where the item has it."""
        return np.array([value is not None for value in self.contents[modality]], dtype=bool)


class ItemStream:
    """The wanted contents of ``data/items/``, read part by part.

    Reading a part that follows the one read before goes on in the file; row groups may be larger
    than memory.

    num_items: N. parts: all of them, N rows together. fingerprint: names the files, by name, size
    and time of change, and how they are cut; pictures given by path are not looked at.
    """

    def __init__(self, data: Path, modalities: Collection[str]) -> None:
        """Read ids and footers, nothing else.

        Raises:
            InputError: missing folder or column, wrong type, a null or duplicate item_id.
        """
        self.folder = data / "items"
        items = open_items(self.folder)
        names = items.names
        self.modalities = tuple(modalities)
        for modality in self.modalities:
            if not set(COLUMNS[modality]) & set(names):
                raise InputError(
                    f"{self.folder} must have a column {' or '.join(COLUMNS[modality])} for "
                    f"modality {modality}, got {', '.join(names)}"
                )
        wanted = [name for modality in self.modalities for name in COLUMNS[modality]]
        self._columns = ["item_id", *(name for name in wanted if name in names)]
        items.check(ITEM_ID, {name: CONTENTS[name] for name in self._columns[1:]})
        table = items.read(ITEM_ID)
        sort_unique(table["item_id"].to_numpy(), f"{self.folder} column item_id")
        self.num_items = table.num_rows
        self.parts = parts_of(items.files)
        self.fingerprint = _fingerprint(items.files, self.parts)
        self._cursor: _Cursor | None = None

    def read(self, part: ItemPart) -> ItemRows:
        """The items of one of ``parts``.

        Raises:
            InputError: an unreadable file, or a column of the wrong type.
        """
        where = f"{part.file} row groups {part.groups[0]} to {part.groups[-1]}"
        with input_errors(where):
            if self._cursor is None or not self._cursor.reaches(part):
                self._cursor = _Cursor(part, self._columns)
            table = self._cursor.take(part.start, part.stop)
        table = check_columns(table, where, ITEM_ID, CONTENTS)
        contents = {"text": self._texts, "image": self._images}
        return ItemRows(
            table["item_id"].to_numpy(), {name: contents[name](table) for name in self.modalities}
        )

    def _texts(self, table: pa.Table) -> list[str | None]:
        blank = pc.equal(pc.utf8_trim_whitespace(table["title"]), "")
        return pc.if_else(blank, None, table["title"]).to_pylist()

    def _images(self, table: pa.Table) -> list[bytes | Path | None]:
        nothing = [None] * table.num_rows
        encoded, paths = (
            table[name].to_pylist() if name in table.column_names else nothing
            for name in COLUMNS["image"]
        )
        return [
            self.folder / path if image is None and path is not None else image
            for image, path in zip(encoded, paths, strict=True)
        ]


class _Cursor:
    """The rows of some row groups of a file, forwards only."""

    def __init__(self, part: ItemPart, columns: list[str]) -> None:
        self._file, self._groups = part.file, part.groups
        parquet = pq.ParquetFile(
            part.file, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        self._batches = parquet.iter_batches(BATCH_ROWS, list(part.groups), columns)
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
                self._held = pa.Table.from_batches([next(self._batches)])
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
