"""Impressions too many for memory, on disk in two orders: by score for AUC, by user for GAUC.

Raw native-endian files for the time of one evaluation, never read by another machine kind.

Shape letters: N impressions.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from torchrec_mm.metrics.auc import check_impressions
from torchrec_mm.metrics.gauc import check_users
from torchrec_mm.metrics.order import SliceBits, score_keys

PARTITIONS = 256
BLOCK_IMPRESSIONS = 1 << 21  # buffered by a writer, about 150 MB when it sorts them
_PARTITION_SHIFT = np.uint64(64 - 8)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth, TAOCP 6.4


class ImpressionFiles:
    """One writer's share of the files; ``torchrec_mm.metrics.streamed`` measures all shares."""

    def __init__(
        self,
        folder: Path,
        writer: int,
        slices: Sequence[str] = (),
        *,
        block_impressions: int = BLOCK_IMPRESSIONS,
    ) -> None:
        """Begin a share.

        Args:
            folder: exists, and is shared by the writers.
            writer: distinguishes them, such as the rank.
            slices: names that ``add`` may give masks for, alike for all writers.
            block_impressions: how many to hold in memory before a block is written.
        """
        self.folder = folder
        self.writer = writer
        self.bits = SliceBits(slices)
        self.block_impressions = block_impressions
        self.blocks = 0
        self._users: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._held = 0

    def add(
        self,
        user_ids: np.ndarray | None,
        labels: np.ndarray,
        scores: np.ndarray,
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Take some impressions, in any order and grouping.

        Args:
            user_ids: (N,) int64, or always None where GAUC is not asked for.
            labels: (N,) 0 or 1. scores: (N,) float32.
            masks: (N,) bool by slice, True where the impression belongs to it; a slice that is
                left out gets none of them.

        Raises:
            ValueError: as ``gauc``, or scores that are not float32.
        """
        labels, scores = check_impressions(labels, scores)
        if scores.dtype != np.float32:
            raise ValueError(f"scores must be float32, got {scores.dtype}")
        if user_ids is not None:
            users = check_users(user_ids, labels).astype(np.int64)
            self._users.append(users.view(np.uint64))
        self._keys.append(self.bits.join(score_keys(labels, scores), masks or {}))
        self._held += len(labels)
        if self._held >= self.block_impressions:
            self.flush()

    def flush(self) -> None:
        """Write what is held; call it once after the last ``add``."""
        if not self._held:
            return
        name = f"{self.writer:05}-{self.blocks:05}"
        keys = np.concatenate(self._keys)
        if self._users:
            self._write_partitions(name, np.concatenate(self._users), keys)
        keys.sort()
        keys.tofile(self.folder / f"{name}.sorted")
        self._users, self._keys, self._held = [], [], 0
        self.blocks += 1

    def _write_partitions(self, name: str, users: np.ndarray, keys: np.ndarray) -> None:
        # Spread first: ids that count up would all fall into the first partition.
        partition = ((users * _SPREAD) >> _PARTITION_SHIFT).astype(np.uint8)
        order = np.argsort(partition, kind="stable")
        users[order].tofile(self.folder / f"{name}.users")
        keys[order].tofile(self.folder / f"{name}.keys")
        counts = np.bincount(partition, minlength=PARTITIONS)
        np.append(0, np.cumsum(counts)).astype(np.int64).tofile(self.folder / f"{name}.offsets")


def read_partitions(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """User ids (uint64 view) and joined keys of all writers, whole users at a time."""
    blocks = [
        (path.with_suffix(""), np.fromfile(path, np.int64))
        for path in sorted(folder.glob("*.offsets"))
    ]
    for partition in range(PARTITIONS):
        parts = [
            [
                _read(block.with_suffix(kind), offsets[partition], offsets[partition + 1])
                for kind in (".users", ".keys")
            ]
            for block, offsets in blocks
        ]
        if parts:
            users, keys = (np.concatenate(column) for column in zip(*parts, strict=True))
            yield users, keys


def read_sorted(folder: Path, window: int) -> Iterator[np.ndarray]:
    """Joined keys of all writers in ascending order, ``window`` at a time but for the last.

    Args:
        folder: where the writers wrote. window: also bounds memory, to a few times its 8 bytes.
    """
    rest = np.zeros(0, np.uint64)
    for piece in _merge([_Run(path) for path in sorted(folder.glob("*.sorted"))], window):
        rest = np.concatenate([rest, piece])
        while len(rest) >= window:
            yield rest[:window]
            rest = rest[window:]
    if len(rest):
        yield rest


class _Run:
    """A sorted file and the part of it that is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = path.stat().st_size // 8  # not taken yet
        self.at = 0  # read so far
        self.head = np.zeros(0, np.uint64)

    def fill(self, count: int) -> None:
        missing = min(count, self.left) - len(self.head)
        if missing > 0:
            self.head = np.concatenate([self.head, _read(self.path, self.at, self.at + missing)])
            self.at += missing

    def take(self, limit: int) -> np.ndarray:
        """Everything in memory up to ``limit``."""
        count = int(np.searchsorted(self.head, limit, side="right"))
        taken, self.head = self.head[:count], self.head[count:]
        self.left -= count
        return taken


def _merge(runs: list[_Run], window: int) -> Iterator[np.ndarray]:
    """Ascending pieces: whatever lies below the first key that is still on disk alone."""
    share = max(window // max(len(runs), 1), 1024)
    while runs:
        for run in runs:
            run.fill(share)
        limit = min(run.head[-1] for run in runs)
        piece = np.concatenate([run.take(limit) for run in runs])
        piece.sort()
        yield piece
        runs = [run for run in runs if run.left]


def _read(path: Path, start: int, stop: int) -> np.ndarray:
    if start == stop:
        return np.zeros(0, np.uint64)
    return np.fromfile(path, np.uint64, count=int(stop - start), offset=8 * int(start))
