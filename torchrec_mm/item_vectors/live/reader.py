"""Follow a live index: the item vectors of now, again and again."""

import time
from pathlib import Path
from threading import Lock

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.counts import Counts
from torchrec_mm.item_vectors.live.index import open_log, read_space
from torchrec_mm.item_vectors.live.log import Log, Space
from torchrec_mm.item_vectors.live.overlay import Overlay
from torchrec_mm.item_vectors.live.pointer import (
    POINTER_FILE,
    Snapshot,
    read_pointer,
    space_folder,
    version_folder,
)
from torchrec_mm.item_vectors.live.view import LiveVectors, nothing_of
from torchrec_mm.item_vectors.store import ItemVectors

TRIES = 5  # to open a snapshot that others publish after, who then remove it


class IndexReader:
    """Gives ``LiveVectors``: those of the moment when they were refreshed last.

    Whoever asks for ``vectors`` once a request has that request see one moment. All of a moment
    changes at once: snapshot, what came since, and, where the index switches spaces, the origin.

    vectors: of the last refresh. counts: of all look-ups in them, and in those before.
    """

    def __init__(self, index: Path | str, origin: str | None = None) -> None:
        """Open what the index serves now.

        Args:
            index: its folder.
            origin: stay in the space of this origin, as a ranker has to; None: in the one that is
                served, whatever it is.

        Raises:
            InputError: no live index, or none of that space.
        """
        self.index, self.origin = Path(index), origin
        self.counts = Counts()
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._log: Log | None = None
        self._from: tuple[str, Snapshot] | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Take in what is new; whether there was anything. For any thread, at any time.

        Cheap when nothing is new: a look at one file, and at the log's last number.

        Raises:
            InputError: the index cannot be read any more; ``vectors`` stay those of before.
        """
        with self._lock:
            return self._move() | self._follow()

    @property
    def staleness_s(self) -> float:
        """Seconds since the newest event that ``vectors`` hold was written; infinite for none."""
        return time.time() - self._newest_s if self._newest_s else float("inf")

    @property
    def version(self) -> int:
        """Of the snapshot below ``vectors``, 0 for none."""
        return self._snapshot.version

    def behind(self) -> int:
        """Records that the log has and ``vectors`` have not; 0 where they do not follow it."""
        with self._lock:
            assert self._log is not None
            return self._log.last() - self.vectors.sequence if self._snapshot.follows else 0

    def close(self) -> None:
        """Let go of the log; ``vectors`` stay."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _move(self) -> bool:
        """Go to the snapshot that the pointer names, if it is another one."""
        stamp = _stamp_of(self.index / POINTER_FILE)  # before it is read: newer ones are seen
        if stamp is not None and stamp == self._stamp:
            return False
        for tries_left in reversed(range(TRIES)):
            try:
                moved = self._open()
                break
            except InputError:
                if not tries_left:
                    raise
        self._stamp = stamp
        return moved

    def _open(self) -> bool:
        now = read_pointer(self.index).now
        origin = self.origin or now.space
        space = read_space(self.index, origin)
        found = (origin, now.snapshots[origin])
        if found == self._from:
            return False
        self._enter(space, found[1])
        self._from = found
        return True

    def _enter(self, space: Space, snapshot: Snapshot) -> None:
        folder = space_folder(self.index, space.origin)
        base = nothing_of(space, folder)
        if snapshot.version:
            base = ItemVectors.open(version_folder(self.index, space.origin, snapshot.version))
        if self._from is None or self._from[0] != space.origin:
            log = open_log(self.index, space.origin)
            if self._log is not None:
                self._log.close()
            self._log = log
        self._snapshot, self._base = snapshot, base
        self._restart()

    def _restart(self) -> None:
        """Begin with the snapshot alone."""
        overlay = Overlay.empty(self._base.width, self._base.dtype)
        self._show(overlay, self._snapshot.sequence, self._snapshot.newest_s)

    def _follow(self) -> bool:
        """Apply what the log has more."""
        assert self._log is not None
        last = self._log.last() if self._snapshot.follows else self.vectors.sequence
        if last == self.vectors.sequence:
            return False
        if last < self.vectors.sequence:  # a server that was restored from an older copy
            self._restart()
        logged = self._log.since(self.vectors.sequence)
        if not len(logged.changes):
            return False
        overlay = self.vectors.overlay.extended(logged.changes)
        self._show(overlay, logged.sequence, logged.newest_s)
        return True

    def _show(self, overlay: Overlay, sequence: int, newest_s: float) -> None:
        self._newest_s = newest_s
        self.vectors = LiveVectors(self._base, overlay, sequence, self.counts)


def _stamp_of(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
