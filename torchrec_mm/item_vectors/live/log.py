"""What every log of a live index does: keep, of each item, what its newest event made of it.

Newest by the event's own version, never by arrival: an event that comes late or again changes
nothing. A deleted item stays known, or a late event would raise it from the dead. Each record that
changes something gets the next sequence number, and readers ask for what came after theirs.

Shape letters: n items of a batch, D item-vector width.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import DTYPES


@dataclass(frozen=True)
class Space:
    """A vector space: as ``Meta`` has it, without the items."""

    width: int
    dtype: str
    encoder: str
    modality: str
    origin: str


@dataclass(frozen=True)
class Changes:
    """What became of n items, in the order of events.

    item_ids: (n,) int64. versions: (n,) int64, the events' own. deleted: (n,) bool; of two events
    of one version the deletion counts. vectors: (n, D) as stored, zeros where deleted.
    """

    item_ids: np.ndarray
    versions: np.ndarray
    deleted: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True)
class Logged:
    """Changes after a sequence number, in the order of theirs; of an item the last counts.

    sequence: of the last. newest_s: Unix seconds at which that was written, 0.0 for none.
    """

    changes: Changes
    sequence: int
    newest_s: float


@dataclass(frozen=True)
class Written:
    """How many changes of a batch were applied, and how many came late or again."""

    applied: int
    late: int


class Log(Protocol):
    """The durable record of one space.

    Every method raises ConnectionError while a server that keeps it cannot be reached: what was
    asked may be asked again, writing too.
    """

    space: Space

    def last(self) -> int:
        """Sequence number of the newest record, 0 for none; cheap, to be asked often."""

    def is_late(
        self, item_ids: np.ndarray, versions: np.ndarray, deleted: np.ndarray
    ) -> np.ndarray:
        """(n,) bool, True where ``write`` would change nothing; arguments as of ``Changes``."""

    def write(self, changes: Changes, origin: str) -> Written:
        """Apply a batch, whole or not at all; it is on disk when this returns.

        Raises:
            InputError: ``origin`` is not that of the space, or the vectors do not fit it.
        """

    def since(self, sequence: int) -> Logged:
        """What was written after a record."""

    def close(self) -> None:
        """Let go of files and connections."""


def check_changes(space: Space, changes: Changes, origin: str) -> None:
    """InputError for changes of another origin, width or dtype than a space has."""
    if origin != space.origin:
        raise InputError(f"vectors must have the origin of the index, {space.origin}, got {origin}")
    shape, dtype = (len(changes), space.width), DTYPES[space.dtype]
    found = changes.vectors
    if found.shape != shape or found.dtype != dtype:
        rule = f"vectors must be {dtype} {shape} as the index has them"
        raise InputError(f"{rule}, got {found.dtype} {found.shape}")


def changes_of(
    space: Space, item_ids: list[int], versions: list[int], vectors: list[bytes | None]
) -> Changes:
    """Changes from what logs keep: the bytes of each vector, None where deleted."""
    dtype = DTYPES[space.dtype]
    nothing = bytes(space.width * dtype.itemsize)
    stored = b"".join(nothing if each is None else each for each in vectors)
    return Changes(
        np.array(item_ids, np.int64),
        np.array(versions, np.int64),
        np.array([each is None for each in vectors], bool),
        np.frombuffer(stored, dtype).reshape(len(vectors), space.width),
    )
