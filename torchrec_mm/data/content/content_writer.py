"""The contents of one modality to disk: bytes as they come, then an index in the promised order.

Shape letters: R rows in all, n rows of a piece.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

DIGEST_BYTES = 16


class ContentWriter:
    """Appends contents to ``bytes.bin``; in memory are 33 bytes a row, and one piece.

    num_bytes: written so far.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: to create, of the modality."""
        folder.mkdir()
        self.folder, self.num_bytes = folder, 0
        self._start: list[np.ndarray] = []
        self._length: list[np.ndarray] = []
        self._digest: list[np.ndarray] = []
        self._is_path: list[np.ndarray] = []

    def add(self, values: pa.Array, is_path: np.ndarray) -> np.ndarray:
        """Append a piece, (n,) binary and (n,) bool; gives (n,) bool, True where content is."""
        present = values.is_valid().to_numpy(zero_copy_only=False)
        data, offsets = _joined(values.drop_null())
        with (self.folder / "bytes.bin").open("ab") as file:
            file.write(data)
        start = np.zeros(len(values), np.int64)
        length = np.full(len(values), -1, np.int64)
        digest = np.zeros((len(values), DIGEST_BYTES // 8), np.uint64)
        start[present], length[present] = self.num_bytes + offsets[:-1], np.diff(offsets)
        digest[present] = _digests(data, offsets, is_path[present])
        for column, part in zip(
            (self._start, self._length, self._digest, self._is_path),
            (start, length, digest, is_path),
            strict=True,
        ):
            column.append(part)
        self.num_bytes += len(data)
        return present

    def finish(self, order: np.ndarray) -> np.ndarray:
        """Write the index.

        ``order``: (R,) int64, at which place row r was added.

        Returns:
            (R, 2) uint64, what identifies the contents, zeros where missing.
        """
        length = np.concatenate(self._length)[order]
        digest = np.concatenate(self._digest)[order]
        np.save(self.folder / "start.npy", np.concatenate(self._start)[order])
        np.save(self.folder / "length.npy", length)
        np.save(self.folder / "content.npy", first_equal(digest, length >= 0))
        np.save(self.folder / "is_path.npy", np.concatenate(self._is_path)[order])
        return digest


def first_equal(digest: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The first row with an equal digest, itself when none is before; -1 where not present.

    Args:
        digest: (R, 2) uint64.
        present: (R,) bool.

    Returns:
        (R,) int64.
    """
    rows = np.flatnonzero(present)
    rows = rows[np.lexsort(digest[rows].T)]  # stable: equal ones stay in order
    ordered = digest[rows]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.full(len(present), -1, dtype=np.int64)
    first[rows] = rows[is_first][np.cumsum(is_first) - 1]
    return first


def _joined(values: pa.Array) -> tuple[memoryview, np.ndarray]:
    """The bytes of (n,) binary one after another, and where they begin and end: (n + 1,) int64."""
    if len(values) == 0:
        return memoryview(b""), np.zeros(1, np.int64)
    _, positions, data = values.buffers()
    offsets = np.frombuffer(positions, np.int32)[values.offset :][: len(values) + 1]
    joined = memoryview(data or b"")[offsets[0] : offsets[-1]]
    return joined, offsets.astype(np.int64) - offsets[0]


def _digests(data: memoryview, offsets: np.ndarray, is_path: np.ndarray) -> np.ndarray:
    """(n, 2) uint64; a path never equals a picture of the same bytes."""
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), is_path.tolist(), strict=True)
    digests = b"".join(
        blake2b(data[begin:end], digest_size=DIGEST_BYTES, person=b"path" if path else b"").digest()
        for begin, end, path in bounds
    )
    return np.frombuffer(digests, np.uint64).reshape(-1, DIGEST_BYTES // 8)
