"""Item vectors that come to a live index some time after their items."""

from contextlib import closing
from pathlib import Path

import numpy as np

from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import create_index, open_log, space_of
from torchrec_mm.item_vectors.live.log import Changes
from torchrec_mm.item_vectors.live.publish import publish
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.item_vectors.live.view import LiveVectors
from torchrec_mm.item_vectors.store import ItemVectors

AT_ONCE = 10_000  # written by one commit


class Arrivals:
    """A live index, and what is still to come to it.

    index: its folder.
    """

    def __init__(
        self,
        index: Path,
        vectors: ItemVectors,
        items: ItemCatalogue,
        *,
        begin_s: int,
        delay_s: float | None,
    ) -> None:
        """Make the index; its snapshot holds what has arrived by ``begin_s``.

        Args:
            index: the new folder. vectors: of all items.
            items: when these were created; one that says no time has always been there.
            begin_s: Unix seconds at which the replay begins.
            delay_s: from creation to arrival; None: whatever was created later never arrives.

        Raises:
            InputError: not one vector is there at the beginning.
        """
        self.index, self._vectors = index, vectors
        arrives_s = created_s(vectors.item_ids, items) + (0.0 if delay_s is None else delay_s)
        if delay_s is None:
            arrives_s[arrives_s > begin_s] = np.inf
        self._order = np.argsort(arrives_s, kind="stable")
        self._arrives_s, self._arrived = arrives_s[self._order], 0
        create_index(index, space_of(vectors))
        if not self._write(begin_s):
            raise InputError(f"vectors must hold some that are there at {begin_s}, got none")
        publish(index)
        self._reader = IndexReader(index)

    def until(self, now_s: int) -> int:
        """Have in the index what has arrived by then; how many came."""
        came = self._write(now_s)
        self._reader.refresh()
        return came

    @property
    def vectors(self) -> LiveVectors:
        """Those that are there."""
        return self._reader.vectors

    def close(self) -> None:
        """Let go of the log."""
        self._reader.close()

    def _write(self, now_s: int) -> int:
        begin = self._arrived
        self._arrived = int(np.searchsorted(self._arrives_s, now_s, "right"))
        with closing(open_log(self.index, self._vectors.origin)) as log:
            for first in range(begin, self._arrived, AT_ONCE):
                rows = self._order[first : min(first + AT_ONCE, self._arrived)]
                item_ids = self._vectors.item_ids[rows]
                nothing, values = np.zeros(len(rows), bool), self._vectors.values[rows]
                changes = Changes(item_ids, np.ones(len(rows), np.int64), nothing, values)
                log.write(changes, self._vectors.origin)
        return self._arrived - begin


def created_s(item_ids: np.ndarray, items: ItemCatalogue) -> np.ndarray:
    """(n,) float64 Unix seconds of items' creation, minus infinity where none is said."""
    if items.created_at is None:
        return np.full(len(item_ids), -np.inf)
    place = items.index.rows(item_ids)
    created_at = items.created_at[place]
    is_known = (place >= 0) & (created_at != ItemCatalogue.UNKNOWN_TIME)
    return np.where(is_known, created_at.astype(np.float64), -np.inf)
