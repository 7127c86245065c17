"""The log in a folder: LMDB, one file that all processes of a host map.

Three tables: items (id to record), log (sequence number to id, of each item its newest only), and
facts (the origin). One transaction a batch: to have it on disk takes as long for one record as for
hundreds. Any number of processes may write; LMDB lets one at a time.
"""

import os
import struct
import time
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.log import (
    Changes,
    Logged,
    Space,
    Written,
    changes_of,
    check_changes,
)

MAP_BYTES = 1 << 38  # address space, not disk: the file is as large as what is in it
READERS = 512  # processes and threads that read at a time
HEAD = struct.Struct(">qqd?")  # sequence, version, Unix seconds, deleted; then the vector
NUMBER = struct.Struct(">q")  # big-endian: LMDB orders keys by their bytes

# LMDB forbids a process to open a file twice. By process: a forked one must open its own.
_OPEN: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()


class LmdbLog:
    """A ``Log`` in a folder."""

    def __init__(self, folder: Path, space: Space) -> None:
        """Open it, and make it if it is not there.

        Args:
            folder: of LMDB's files; on a disk of this host, not on a network's.
            space: of its vectors.

        Raises:
            InputError: lmdb is not installed, the files are garbled, or vectors of another origin.
        """
        self.space = space
        self._env = _environment(folder)
        self._items, self._log = (self._env.open_db(name) for name in (b"items", b"log"))
        facts = self._env.open_db(b"facts")
        with self._env.begin(write=True, db=facts) as transaction:
            transaction.put(b"origin", space.origin.encode(), overwrite=False)
            origin = transaction.get(b"origin").decode()
        if origin != space.origin:
            raise InputError(f"{folder} must hold vectors of {space.origin}, got {origin}")

    def last(self) -> int:
        with self._env.begin(db=self._log) as transaction:
            return _last(transaction.cursor())

    def is_late(
        self, item_ids: np.ndarray, versions: np.ndarray, deleted: np.ndarray
    ) -> np.ndarray:
        with self._env.begin(db=self._items) as transaction:
            records = [transaction.get(NUMBER.pack(item_id)) for item_id in item_ids]
        asked = zip(records, versions.tolist(), deleted.tolist(), strict=True)
        late = [bool(r) and (version, gone) <= _version(r)[1:] for r, version, gone in asked]
        return np.array(late, bool)

    def write(self, changes: Changes, origin: str) -> Written:
        check_changes(self.space, changes, origin)
        applied, now = 0, time.time()
        with self._env.begin(write=True, db=self._items) as transaction:
            sequence = _last(transaction.cursor(self._log))
            for row in range(len(changes)):
                key = NUMBER.pack(changes.item_ids[row])
                version, deleted = int(changes.versions[row]), bool(changes.deleted[row])
                if before := transaction.get(key):
                    at, *newest = _version(before)
                    if (version, deleted) <= tuple(newest):
                        continue
                    transaction.delete(NUMBER.pack(at), db=self._log)
                sequence, applied = sequence + 1, applied + 1
                vector = b"" if deleted else changes.vectors[row].tobytes()
                transaction.put(key, HEAD.pack(sequence, version, now, deleted) + vector)
                transaction.put(NUMBER.pack(sequence), key, db=self._log)
        return Written(applied, len(changes) - applied)

    def since(self, sequence: int) -> Logged:
        item_ids: list[int] = []
        versions: list[int] = []
        vectors: list[bytes | None] = []
        newest_s = 0.0
        with self._env.begin(db=self._items) as transaction:
            cursor = transaction.cursor(self._log)
            if cursor.set_range(NUMBER.pack(sequence + 1)):
                for at, key in cursor:
                    record = transaction.get(key)
                    _, version, newest_s, deleted = HEAD.unpack_from(record)
                    item_ids.append(*NUMBER.unpack(key))
                    versions.append(version)
                    vectors.append(None if deleted else record[HEAD.size :])
                    (sequence,) = NUMBER.unpack(at)
        return Logged(changes_of(self.space, item_ids, versions, vectors), sequence, newest_s)

    def close(self) -> None:
        """The file is closed once nobody in this process has it open."""
        del self._env


def _environment(folder: Path) -> Any:
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise InputError("a live index must have lmdb installed: pip install lmdb") from error
    key = (os.getpid(), os.path.realpath(folder))
    if (env := _OPEN.get(key)) is None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            env = lmdb.open(str(folder), map_size=MAP_BYTES, max_dbs=3, max_readers=READERS)
        except lmdb.Error as error:
            raise InputError(f"{folder} must be a log of a live index: {error}") from error
        env.reader_check()  # killed readers would keep old pages from being used again
        _OPEN[key] = env
    return env


def _last(cursor: Any) -> int:
    return int(NUMBER.unpack(cursor.key())[0]) if cursor.last() else 0


def _version(record: bytes) -> tuple[int, int, bool]:
    """Sequence number, version, and whether deleted."""
    sequence, version, _, deleted = HEAD.unpack_from(record)
    return sequence, version, deleted
