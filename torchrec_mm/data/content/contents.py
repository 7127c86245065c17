"""The pictures, or the texts, of packed content.

A folder holds ``bytes.bin`` and, for each row, ``start.npy`` and ``length.npy`` (-1 where missing):
where its bytes are; ``content.npy``: the first row of equal bytes, itself when none is before, -1
where missing; ``is_path.npy``: whether the bytes are the absolute path of a picture instead.

Shape letters: N items, S searches, n rows asked for.
"""

import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.data.content.content_columns import as_sources
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import map_array


class Contents:
    """One modality of packed content; ``content`` and ``lengths`` are memory-mapped.

    content: (N + S,) int64, equal where the bytes, or the paths, are; itself a row, -1 where
    missing. lengths: (N + S,) int64 bytes, -1 where missing.
    """

    def __init__(
        self, folder: Path, num_items: int, num_searches: int, num_bytes: int | None
    ) -> None:
        """Map arrays, look at the bytes' size; InputError for missing or garbled files, sizes."""
        self.folder = folder
        rows = (num_items + num_searches,)
        self.content = map_array(folder / "content.npy", rows)
        self.lengths = map_array(folder / "length.npy", rows)
        self._start = map_array(folder / "start.npy", rows)
        self._is_path = map_array(folder / "is_path.npy", rows, bool)
        self._file = _open_file(folder / "bytes.bin", num_bytes)
        assert num_bytes is not None  # the file has as many
        self._sizes = num_items, num_searches, num_bytes
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder again instead of receiving a copy."""
        return Contents, (self.folder.absolute(), *self._sizes)

    @cached_property
    def present(self) -> np.ndarray:
        """(N + S,) bool, True where there is a content."""
        return self.content >= 0

    @property
    def of_items(self) -> np.ndarray:
        """(N,) int64, the items' part of ``content``."""
        return self.content[: self._sizes[0]]

    def pictures(self, rows: np.ndarray) -> list[bytes | Path]:
        """Some of modality "image": (n,) int64 rows -> n encoded pictures or paths of such.

        Raises:
            ValueError: a row that has none.
            InputError: bytes that cannot be read.
        """
        return as_sources(self._read(rows), self._is_path[rows])

    def texts(self, rows: np.ndarray) -> list[str]:
        """Some of modality "text", as ``pictures``; bytes that are no text are refused too."""
        return [self._text(each) for each in self._read(rows)]

    def _read(self, rows: np.ndarray) -> list[bytes]:
        start, lengths = self._start[rows], self.lengths[rows]
        if (lengths < 0).any():
            raise ValueError(f"rows must have a content, got {rows[lengths < 0][0]}")
        within = (start >= 0) & (start + lengths <= self._sizes[2])
        places = zip(start.tolist(), lengths.tolist(), strict=True)
        raw = [os.pread(self._file, *place[::-1]) for place in places] if within.all() else []
        if [len(each) for each in raw] != lengths.tolist():
            rule = f"{self.folder} start.npy and length.npy must name places in bytes.bin"
            raise InputError(f"{rule}, and do not")
        return raw

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.folder / 'bytes.bin'} must be UTF-8: {error}") from error


def _open_file(path: Path, num_bytes: int | None) -> int:
    """A file descriptor; forked processes may share it, since every read names its place."""
    try:
        size = path.stat().st_size
        if size != num_bytes:
            raise InputError(f"{path} must have {num_bytes} bytes as meta.json says, got {size}")
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path} must be readable: {error.strerror}") from error
