"""What came since a snapshot, in memory: upserts and deletions, found by id.

Shape letters: m items that changed, n changes, D item-vector width.
"""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.ids import IdIndex
from torchrec_mm.item_vectors.live.log import Changes

DELETED = -1
UNKNOWN = -2
ROOM = 256  # vectors of the first buffer; each next one is twice as large


@dataclass(frozen=True)
class Overlay:
    """item_ids: (m,) int64 ascending. places: (m,) int64, where in ``buffer``, or ``DELETED``.

    buffer: (room, D) as stored, of which ``used`` are taken. Nothing in it is ever overwritten, so
    overlays that grew out of each other share it, and older ones stay as they were.
    """

    item_ids: np.ndarray
    places: np.ndarray
    buffer: np.ndarray
    used: int

    @classmethod
    def empty(cls, width: int, dtype: np.dtype) -> "Overlay":
        """Of vectors of D numbers."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, np.empty((0, width), dtype), 0)

    def __len__(self) -> int:
        return len(self.item_ids)

    def extended(self, changes: Changes) -> "Overlay":
        """With later changes; of an item that occurs more than once the last counts.

        To be called once of each overlay: two that grew out of one would share its free room.
        """
        added = np.flatnonzero(~changes.deleted)
        places = np.full(len(changes), DELETED, np.int64)
        places[added] = self.used + np.arange(len(added))
        used = self.used + len(added)
        buffer = self.buffer
        if used > len(buffer):
            buffer = np.empty((max(ROOM, 2 * used), buffer.shape[1]), buffer.dtype)
            buffer[: self.used] = self.buffer[: self.used]
        buffer[self.used : used] = changes.vectors[added]
        item_ids = np.concatenate([self.item_ids, changes.item_ids])
        order = np.argsort(item_ids, kind="stable")
        item_ids = item_ids[order]
        is_last = np.append(item_ids[1:] != item_ids[:-1], True)[: len(item_ids)]
        places = np.concatenate([self.places, places])[order][is_last]
        return Overlay(item_ids[is_last], places, buffer, used)

    def find(self, item_ids: np.ndarray) -> np.ndarray:
        """Place of each item, ``DELETED``, or ``UNKNOWN`` if it did not change; any shape."""
        at = IdIndex(self.item_ids).rows(item_ids)
        return np.where(at < 0, UNKNOWN, self.places[at]) if len(self) else at - 1
