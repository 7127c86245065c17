"""Item vectors of one moment: a snapshot and what came since.

Shape letters: N items of the snapshot, V rows in all, M items asked for, D item-vector width.
"""

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from torchrec_mm.ids import as_ids
from torchrec_mm.item_vectors.live.counts import Counts
from torchrec_mm.item_vectors.live.log import Space
from torchrec_mm.item_vectors.live.overlay import DELETED, Overlay
from torchrec_mm.item_vectors.store import DTYPES, ItemVectors, Meta


class LiveVectors(ItemVectors):
    """``ItemVectors`` that never change, though the index does: ``IndexReader`` gives newer ones.

    The overlay's rows come after the snapshot's. Rows of items that changed or were deleted since
    stay where they are, and ``rows`` never names them.
    """

    def __init__(
        self, snapshot: ItemVectors, overlay: Overlay, sequence: int, counts: Counts
    ) -> None:
        """Put both together.

        Args:
            snapshot: may be empty, see ``nothing_of``.
            overlay: what came since.
            sequence: of the last record that is in either.
            counts: that every look-up is added to.
        """
        self.snapshot, self.overlay = snapshot, overlay
        self.sequence, self.counts = sequence, counts
        self.folder = snapshot.folder
        self.meta = snapshot.meta
        if len(overlay):
            rows = len(snapshot) + overlay.used
            name = f"{snapshot.fingerprint}+{sequence}"
            self.meta = replace(snapshot.meta, items=rows, fingerprint=name)

    @property
    def item_ids(self) -> NoReturn:  # type: ignore[override]
        """Of a snapshot alone: its ids ascend, and ids in no order would be taken for such."""
        raise TypeError(
            "LiveVectors have no item_ids in order: publish, and open what is published"
        )

    @cached_property
    def values(self) -> np.ndarray:  # type: ignore[override]
        """(V, D) as stored: all rows; a copy of the snapshot, unless nothing came since."""
        if not self.overlay.used:
            return self.snapshot.values
        return np.concatenate([self.snapshot.values, self.overlay.buffer[: self.overlay.used]])

    @cached_property
    def num_items(self) -> int:
        """How many have a vector."""
        replaced = (self.snapshot.rows(self.overlay.item_ids) >= 0).sum()
        return int(len(self.snapshot) - replaced + (self.overlay.places >= 0).sum())

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        item_ids = as_ids(item_ids, "item_ids")
        rows = self.snapshot.rows(item_ids)
        if len(self.overlay):
            places = self.overlay.find(item_ids)
            rows = np.where(places >= 0, len(self.snapshot) + places, rows)
            rows = np.where(places == DELETED, -1, rows)
        self.counts.add(rows)
        return rows

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.asarray(rows, dtype=np.int64)
        is_added = rows >= len(self.snapshot)
        values, mask = self.snapshot.gather(np.where(is_added, -1, rows))
        if is_added.any():
            values[is_added] = self.overlay.buffer[rows[is_added] - len(self.snapshot)]
        return values, mask | is_added

    def with_values(self, values: np.ndarray, meta: Meta) -> "LiveVectors":
        base = len(self.snapshot)
        snapshot = self.snapshot.with_values(values[:base], replace(meta, items=base))
        overlay = replace(self.overlay, buffer=values[base:])
        return LiveVectors(snapshot, overlay, self.sequence, self.counts)

    def __reduce__(self) -> NoReturn:
        """Another process would open another moment, whose rows are not these."""
        raise TypeError("LiveVectors must stay in their process: open an IndexReader in the other")


def nothing_of(space: Space, folder: Path) -> ItemVectors:
    """The snapshot of a space that has none yet."""
    meta = Meta(items=0, fingerprint="", **asdict(space))
    values = np.empty((0, space.width), DTYPES[space.dtype])
    return ItemVectors(folder, np.empty(0, np.int64), values, meta)
