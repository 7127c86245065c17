"""The folder of a live index: its vector spaces, and the log that each of them has.

INDEX/
  index.json                  which log; made once
  current.json                what readers read, see pointer.py
  spaces/ORIGIN/space.json    width, dtype, encoder, modality, origin
  spaces/ORIGIN/log/          LMDB, unless the log is a server's
  spaces/ORIGIN/versions/N/   published snapshots, item vectors each

One space is served. A new encoder's vectors have a space of their own, filled beside it until
readers are switched: vectors of two origins never lie in one.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import copytree
from uuid import uuid4

from torchrec_mm.documents import read_record
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.item_vectors.live.lmdb_log import LmdbLog
from torchrec_mm.item_vectors.live.log import Log, Space
from torchrec_mm.item_vectors.live.pointer import (
    POINTER_FILE,
    Pointer,
    Snapshot,
    State,
    read_pointer,
    space_folder,
    version_folder,
    write_pointer,
)
from torchrec_mm.item_vectors.store import ItemVectors

FORMAT = 1
INDEX_FILE, SPACE_FILE, LOG_FOLDER = "index.json", "space.json", "log"
LMDB = "lmdb"
SERVERS = ("redis://", "rediss://")


@dataclass(frozen=True)
class IndexMeta:
    """What ``index.json`` says, besides its ``format``.

    log: "lmdb", or the URL of a server that speaks Redis' protocol. name: of the index there, so
    that several share a server; folders of one name on several hosts are one index.
    """

    log: str
    name: str


def space_of(vectors: ItemVectors) -> Space:
    """That of item vectors."""
    return Space(
        width=vectors.width,
        dtype=vectors.meta.dtype,
        encoder=vectors.encoder,
        modality=vectors.modality,
        origin=vectors.origin,
    )


def create_index(index: Path, space: Space, log: str = LMDB) -> None:
    """Make an index of one space, without an item.

    Args:
        index: the new folder.
        space: that is served.
        log: as ``IndexMeta`` has it.

    Raises:
        InputError: the folder exists and is not empty, or there is no such kind of log.
    """
    if log != LMDB and (not log.startswith(SERVERS) or "@" in log):
        rule = "log must be lmdb or redis://HOST:PORT/DB, a password in REDIS_PASSWORD"
        raise InputError(f"{rule}, got {log}")
    with new_folder(index) as aside:
        write_json(aside / INDEX_FILE, {"format": FORMAT} | asdict(IndexMeta(log, uuid4().hex)))
        _make_space(aside, space)
        write_pointer(aside, Pointer(State(space.origin, {space.origin: Snapshot()})))


def add_space(index: Path, space: Space) -> None:
    """Have a further space, that nobody is served from yet; nothing to do if it is there."""
    with locked(index):
        pointer = read_pointer(index)
        if space.origin in pointer.now.snapshots:
            return
        _make_space(index, space)
        now = pointer.now.with_snapshot(space.origin, Snapshot())
        write_pointer(index, Pointer(now, pointer.before))


def adopt(index: Path, vectors: ItemVectors) -> None:
    """Make item vectors the first snapshot of their space, which must have none; it is served.

    Their items have no versions: whatever is written of one is newer.

    Raises:
        InputError: the space has a snapshot, or records, already.
    """
    origin = vectors.origin
    add_space(index, space_of(vectors))
    with locked(index):
        pointer = read_pointer(index)
        with closing(open_log(index, origin)) as log:
            is_new = not pointer.now.snapshots[origin].version and not log.last()
        if not is_new:
            raise InputError(f"vectors must be of a space that is new, got {origin} of {index}")
        folder = version_folder(index, origin, 1)
        with new_folder(folder) as aside:
            copytree(vectors.folder, aside, dirs_exist_ok=True)
        now = State(origin, pointer.now.snapshots).with_snapshot(origin, Snapshot(version=1))
        write_pointer(index, pointer.moved(now))


def read_space(index: Path, origin: str) -> Space:
    """A space of an index; InputError names those there are if it has none of this origin."""
    spaces = read_pointer(index).now.snapshots
    if origin not in spaces:
        rule = f"space must be one that {index} has, {', '.join(spaces)}"
        raise InputError(f"{rule}, got {origin}")
    return read_record(space_folder(index, origin) / SPACE_FILE, Space, FORMAT)


def open_log(index: Path, origin: str) -> Log:
    """The log of a space, to write to or to follow.

    Raises:
        InputError: as ``read_space``; or the log cannot be opened or reached.
    """
    space = read_space(index, origin)
    meta = read_record(index / INDEX_FILE, IndexMeta, FORMAT)
    if meta.log == LMDB:
        return LmdbLog(space_folder(index, origin) / LOG_FOLDER, space)
    from torchrec_mm.item_vectors.live.redis_log import RedisLog

    return RedisLog(meta.log, f"{meta.name}:{origin}", space)


def has_index(index: Path) -> bool:
    """Whether a folder is a live index."""
    return (index / POINTER_FILE).is_file()


@contextmanager
def locked(index: Path) -> Iterator[None]:
    """For whoever changes the pointer; InputError if another process does so."""
    read_pointer(index)
    with (index / ".lock").open("wb") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            rule = "index must not be in use by another that publishes"
            raise InputError(f"{rule}, got {index}") from error
        yield


def _make_space(index: Path, space: Space) -> None:
    folder = space_folder(index, space.origin)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SPACE_FILE, {"format": FORMAT} | asdict(space))
