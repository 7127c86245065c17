"""Writes one modality of packed content: bytes end to end, and where each row's are.

    bytes.bin      encoded pictures, their paths, or texts, in the order they came in
    start.npy      (R,) int64, where a row's bytes begin
    length.npy     (R,) int64, how many; -1 where the row has none
    content.npy    (R,) int64, the first row with equal bytes; -1 where the row has none
    is_path.npy    (R,) bool, True where the bytes are a path

Shape letters: R rows of items and searches together.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np

DIGEST_BYTES = 16


class ContentWriter:
    """Appends; memory holds 33 bytes a row."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._file = (folder / "bytes.bin").open("wb")
        self._lengths: list[np.ndarray] = []
        self._is_path: list[np.ndarray] = []
        self._digests: list[bytes] = []

    def add(
        self, values: list[bytes | str | None], paths: list[str | None], beside: Path
    ) -> np.ndarray:
        """Append rows.

        Args:
            values: of each row; blank texts count as missing.
            paths: as long, of files that hold the value where there is none.
            beside: folder that paths start from.

        Returns:
            (rows,) bool, True where there is something. Files are not looked at.
        """
        lengths, is_path = np.full(len(values), -1), np.zeros(len(values), dtype=bool)
        digests = []
        for row, (value, path) in enumerate(zip(values, paths, strict=True)):
            if isinstance(value, str):
                value = value.encode() if value.strip() else None
            if value is None and path is not None:
                value, is_path[row] = str((beside / path).absolute()).encode(), True
            if value is not None:
                self._file.write(value)
                lengths[row] = len(value)
            marked = b"" if value is None else (b"path:" if is_path[row] else b"") + value
            digests.append(blake2b(marked, digest_size=DIGEST_BYTES).digest())
        self._lengths.append(lengths)
        self._is_path.append(is_path)
        self._digests.append(b"".join(digests))
        return lengths >= 0

    def present(self) -> np.ndarray:
        """(rows so far,) bool, True where there is something."""
        return np.concatenate(self._lengths) >= 0

    def close(self, order: np.ndarray) -> bytes:
        """Write the arrays with the rows in a new order.

        Args:
            order: (R,) int64, which row as it came in is the new row i.

        Returns:
            A digest of all contents in that order.
        """
        self._file.close()
        lengths = np.concatenate(self._lengths)
        start = np.cumsum(lengths.clip(min=0)) - lengths.clip(min=0)
        digests = np.frombuffer(b"".join(self._digests), dtype=np.uint64).reshape(len(lengths), 2)
        lengths, digests = lengths[order], np.ascontiguousarray(digests[order])
        np.save(self._folder / "start.npy", start[order])
        np.save(self._folder / "length.npy", lengths)
        np.save(self._folder / "is_path.npy", np.concatenate(self._is_path)[order])
        np.save(self._folder / "content.npy", np.where(lengths >= 0, first_equal(digests), -1))
        return blake2b(digests.data, digest_size=DIGEST_BYTES).digest()


def first_equal(digests: np.ndarray) -> np.ndarray:
    """(R,) int64, for each row of ``digests`` (R, 2) the first row that is equal to it."""
    order = np.lexsort(digests.T)  # stable: of equal rows the first comes first
    new = np.ones(len(order), dtype=bool)
    new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first
