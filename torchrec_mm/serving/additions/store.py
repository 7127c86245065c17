"""Behaviours by user, in a folder of LMDB's: written by one thread, read by any, at the same time.

A table for each kind of behaviour, and in it of each user his newest, in the order of their times:
records of one length, which LMDB keeps sorted below their user and gives all at once. A record is
its time and its item, then its attributes; of one user, second and item there is one, whatever
comes again. Of users that were deleted it is known until when; what they did up to then is not
taken again. Whoever reads sees one moment, and waits for nobody.

Shape letters: R requests, n behaviours, A attributes.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.errors import InputError
from torchrec_mm.serving.additions.body import Added, Additions, Deletion, Kind
from torchrec_mm.serving.histories import LONG_AGO

MAP_BYTES = 1 << 38  # address space, not disk: the file is as large as what is in it
READERS = 512
LONGEST = 511  # bytes of a record, LMDB's bound where a key has several
NUMBER = struct.Struct(">q")
SIGN = 1 << 63  # turns int64 to uint64 of the same order, so that bytes are sorted as numbers are
OF_PLACE = 16  # bytes of a record that say which it is: time and item


class Unkept(Exception):
    """Behaviours that could not be written: a full disk."""


@dataclass(frozen=True)
class Outcome:
    """added: behaviours that are kept. known: that were there.

    older: than all that are kept, or than their user's deletion.
    """

    added: int = 0
    known: int = 0
    older: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(self.added + other.added, self.known + other.known, self.older + other.older)


class AddedBehaviours:
    """The behaviours of one ranker's kinds. Several processes of a host may share a folder."""

    def __init__(self, folder: Path, kinds: Mapping[str, Kind], most: int) -> None:
        """Open a folder, and make it if it is not there; on a disk of this host.

        Args:
            folder: of LMDB's files. kinds: see ``kinds_of``. most: of a kind that are kept of each
                user, the newest.

        Raises:
            InputError: lmdb is not installed, other files, or of a ranker with other attributes;
                more attributes than fit.
        """
        self._kinds, self._most = dict(kinds), most
        self._records = {name: _record(kind) for name, kind in kinds.items()}
        self._env = _opened(folder, len(kinds) + 3)
        tables = {"dupsort": True, "dupfixed": True}
        self._tables = {name: self._env.open_db(name.encode(), **tables) for name in kinds}
        self._texts = self._env.open_db(b"texts")
        self._deleted = self._env.open_db(b"deleted")
        self._check_attributes(folder)

    def close(self) -> None:
        """Let go of the files."""
        self._env.close()

    def write(self, changes: Iterable[Additions | Deletion]) -> list[Outcome | int]:
        """Keep what is new, delete what is to go, all of it at once; on disk when this returns.

        Returns:
            What became of additions, and how many behaviours a deletion found here.

        Raises:
            Unkept: nothing was written.
        """
        import lmdb

        try:
            with self._env.begin(write=True) as transaction:
                return [self._write(transaction, change) for change in changes]
        except (lmdb.Error, OSError) as error:
            raise Unkept(f"behaviours could not be written: {error}") from error

    def of(
        self, users: np.ndarray, after: np.ndarray, before: np.ndarray
    ) -> dict[str, tuple[Jagged, np.ndarray]]:
        """What users did between two moments, as it is now.

        ``users``, ``after``, ``before``: (R,) int64; both moments themselves are left out.

        Returns:
            By kind R lists of item ids, oldest first, and (n, A) int64 of their attributes.
        """
        keys = [NUMBER.pack(user) for user in np.unique(users).tolist()]
        with self._env.begin() as transaction:
            return {
                name: _cut(self._read(transaction, name, keys), users, after, before)
                for name in self._kinds
            }

    def deleted(self, users: np.ndarray) -> np.ndarray:
        """(R,) int64 seconds up to which each user was deleted; LONG_AGO: never."""
        with self._env.begin(db=self._deleted) as transaction:
            return np.array([_until(transaction, NUMBER.pack(u)) for u in users.tolist()], np.int64)

    def texts(self, ids: np.ndarray) -> dict[int, str]:
        """The texts of attributes by their ids."""
        with self._env.begin(db=self._texts) as transaction:
            found = {
                number: transaction.get(NUMBER.pack(number)) for number in np.unique(ids).tolist()
            }
        return {number: text.decode() for number, text in found.items() if text is not None}

    def _read(self, transaction: Any, name: str, keys: list[bytes]) -> np.ndarray:
        record = np.dtype([("user", ">i8"), *self._records[name].descr])
        cursor = transaction.cursor(self._tables[name])
        size = self._records[name].itemsize
        found = cursor.getmulti(keys, dupdata=True, dupfixed_bytes=size, keyfixed=True)
        return np.frombuffer(found, record)

    def _write(self, transaction: Any, change: Additions | Deletion) -> Outcome | int:
        if isinstance(change, Deletion):
            return self._delete(transaction, change)
        return self._add(transaction, change)

    def _delete(self, transaction: Any, deletion: Deletion) -> int:
        key, count = NUMBER.pack(deletion.user), 0
        for table in self._tables.values():
            cursor = transaction.cursor(table)
            if cursor.set_key(key):
                count += cursor.count()
                cursor.delete(dupdata=True)
        until = max(deletion.at, _until(transaction, key, self._deleted))
        transaction.put(key, NUMBER.pack(until), db=self._deleted)
        return count

    def _add(self, transaction: Any, additions: Additions) -> Outcome:
        for number, text in additions.texts.items():
            transaction.put(NUMBER.pack(number), text.encode(), db=self._texts, overwrite=False)
        outcome = Outcome()
        for name, added in additions.of_kind.items():
            cursor = transaction.cursor(self._tables[name])
            packed = _packed(added, self._records[name])
            for (key, record), time in zip(packed, added.times.tolist(), strict=True):
                if time <= _until(transaction, key, self._deleted):
                    outcome += Outcome(older=1)
                else:
                    outcome += self._put(cursor, key, record)
        return outcome

    def _put(self, cursor: Any, key: bytes, record: bytes) -> Outcome:
        place = record[:OF_PLACE]
        if cursor.set_range_dup(key, place) and cursor.value()[:OF_PLACE] == place:
            return Outcome(known=1)
        held = cursor.count() if cursor.set_key(key) else 0
        if held >= self._most:
            if place < cursor.value()[:OF_PLACE]:  # the oldest of them
                return Outcome(older=1)
            cursor.delete()
        cursor.put(key, record)
        return Outcome(added=1)

    def _check_attributes(self, folder: Path) -> None:
        """Records mean nothing but by the attributes that they were written with."""
        facts = self._env.open_db(b"facts")
        said = {name: [*kind.attributes] for name, kind in self._kinds.items() if kind.attributes}
        with self._env.begin(write=True, db=facts) as transaction:
            transaction.put(b"attributes", json.dumps(said).encode(), overwrite=False)
            found = json.loads(transaction.get(b"attributes"))
        if found != said:
            rule = f"additions must be a folder of behaviours with the attributes {said}"
            raise InputError(f"{rule}, got {found} in {folder}")


def _until(transaction: Any, key: bytes, table: Any = None) -> int:
    """Up to when a user was deleted; LONG_AGO: never."""
    found = transaction.get(key, db=table) if table else transaction.get(key)
    return NUMBER.unpack(found)[0] if found else LONG_AGO


def _record(kind: Kind) -> np.dtype:
    record = np.dtype(
        [("time", ">u8"), ("item", ">u8"), ("attributes", "<i8", (len(kind.attributes),))]
    )
    if record.itemsize > LONGEST:
        most = (LONGEST - OF_PLACE) // 8
        rule = f"additions must be of a ranker with at most {most} attributes of behaviours"
        raise InputError(f"{rule}, got {len(kind.attributes)}")
    return record


def _packed(added: Added, kind: np.dtype) -> Iterable[tuple[bytes, bytes]]:
    records = np.empty(len(added), kind)
    records["time"] = added.times.astype(np.uint64) ^ np.uint64(SIGN)
    records["item"] = added.item_ids.astype(np.uint64) ^ np.uint64(SIGN)
    records["attributes"] = added.attributes
    for user, record in zip(added.users.tolist(), records, strict=True):
        yield NUMBER.pack(user), record.tobytes()


def _cut(
    found: np.ndarray, users: np.ndarray, after: np.ndarray, before: np.ndarray
) -> tuple[Jagged, np.ndarray]:
    """Of records sorted by user as bytes, those of each request."""
    times = (found["time"].astype(np.uint64) ^ np.uint64(SIGN)).astype(np.int64)
    items = (found["item"].astype(np.uint64) ^ np.uint64(SIGN)).astype(np.int64)
    ids, starts = np.unique(found["user"].astype(np.int64), return_index=True)
    counts = np.unique(found["user"], return_counts=True)[1]
    ranges = {
        user: slice(start, start + count)
        for user, start, count in zip(ids.tolist(), starts.tolist(), counts.tolist(), strict=True)
    }
    places = []
    for user, least, most in zip(users.tolist(), after.tolist(), before.tolist(), strict=True):
        own = ranges.get(user, slice(0, 0))
        begin = own.start + int(np.searchsorted(times[own], least, "right"))
        end = own.start + int(np.searchsorted(times[own], most, "left"))
        places.append(np.arange(begin, max(begin, end)))
    at = np.concatenate(places)
    lists = Jagged(items[at], offsets_of(np.array([len(each) for each in places])))
    return lists, found["attributes"].astype(np.int64)[at]


def _opened(folder: Path, tables: int) -> Any:
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise InputError("additions must have lmdb installed: pip install lmdb") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        env = lmdb.open(str(folder), map_size=MAP_BYTES, max_dbs=tables, max_readers=READERS)
    except (lmdb.Error, OSError) as error:
        raise InputError(
            f"additions must be a folder of behaviours, got {folder}: {error}"
        ) from error
    env.reader_check()  # killed readers would keep old pages from being used again
    return env
