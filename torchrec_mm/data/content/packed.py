"""Packed content: what phase one trains on, memory-mapped and read at random.

`apps.pack` writes it. Rows have one numbering: [0, N) the items in ascending id, [N, N + S) the
searches in order of time, ties by search_id. A folder holds

    meta.json                    counts, names, fingerprint
    item_ids.npy                 (N,) int64
    attributes.npy               (A, N) int64, the categorical columns of items/
    search_ids.npy, timestamps.npy, purchased.npy   (S,) int64, purchased as item rows
    hard.npy                     (S, H) int64 item rows, -1 in empty slots
    image/, text/                bytes.bin and its index, see ``contents.py``

Shape letters: N items, A attributes, S searches, H hard-negative slots, T and Q searches to train
on and held out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from torchrec_mm.data.content.contents import Contents
from torchrec_mm.data.content.groups import connected, hold_out_groups
from torchrec_mm.documents import read_record
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import map_array

FORMAT = 1
META = "meta.json"


@dataclass(frozen=True)
class Meta:
    """What ``meta.json`` says besides its ``format``.

    bytes: length of ``bytes.bin`` by modality. fingerprint: of all ids, times, attributes, clicks
    and contents; the files that they came in and their order there do not matter.
    """

    items: int
    searches: int
    modalities: list
    attributes: list
    hard_slots: int
    bytes: dict
    fingerprint: str


@dataclass(frozen=True)
class PackedContent:
    """Items, searches and their contents; arrays are memory-mapped and read-only.

    item_ids: (N,) int64, strictly ascending. attributes: (N,) int64 by column.
    search_ids, timestamps: (S,) int64, oldest first. purchased: (S,) int64 item rows.
    hard: (S, H) int64 item rows, -1 in empty slots. by_modality: "image" and/or "text".
    """

    folder: Path
    item_ids: np.ndarray
    attributes: Mapping[str, np.ndarray]
    search_ids: np.ndarray
    timestamps: np.ndarray
    purchased: np.ndarray
    hard: np.ndarray
    by_modality: Mapping[str, Contents]
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "PackedContent":
        """Map the folder's arrays and check that they belong together.

        Raises:
            InputError: no such folder, a missing or garbled file, another format, or files that
                disagree with ``meta.json``.
        """
        if not (folder / META).is_file():
            raise InputError(f"{folder} must be a folder of packed content: no {META} in it")
        meta = read_record(folder / META, Meta, FORMAT)
        attributes = _map(folder, "attributes", (len(meta.attributes), meta.items))
        return cls(
            folder,
            _map(folder, "item_ids", (meta.items,)),
            dict(zip(meta.attributes, attributes, strict=True)),
            _map(folder, "search_ids", (meta.searches,)),
            _map(folder, "timestamps", (meta.searches,)),
            _map(folder, "purchased", (meta.searches,)),
            _map(folder, "hard", (meta.searches, meta.hard_slots)),
            {
                modality: Contents(
                    folder / modality, meta.items, meta.searches, meta.bytes.get(modality)
                )
                for modality in meta.modalities
            },
            meta.fingerprint,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder again instead of receiving a copy."""
        return PackedContent.open, (self.folder.absolute(),)

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_ids)

    @property
    def num_searches(self) -> int:
        """S."""
        return len(self.search_ids)

    def fused_ids(self) -> np.ndarray:
        """What tells contents apart: (N + S,) int64, equal where picture and text both are.

        It is the first such row; a missing picture equals another missing one. Of one modality it
        is the content, -1 where missing; of two no row lacks both.
        """
        first, *others = (contents.content for contents in self.by_modality.values())
        fused = np.array(first)
        for content in others:
            pair = (fused + 1) * (len(fused) + 1) + content + 1
            _, rows, pair_of = np.unique(pair, return_index=True, return_inverse=True)
            fused = rows[pair_of]
        return fused

    def split(
        self, holdout: float, by: Literal["time", "item"] = "time"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Searches to train on and searches held out.

        Args:
            holdout: share to hold out, in (0, 1): of the searches by time, of the items by item.
            by: "time" holds out the latest searches, at least one; "item" those that bought one of
                ``held_out_items``.

        Returns:
            (T,) and (Q,) int64 in [0, S), ascending; together all searches.

        Raises:
            InputError: no search is left on one of the two sides.
        """
        total = self.num_searches
        if by == "time":
            held_out = np.arange(total) >= total - max(1, round(holdout * total))
        else:
            held_out = self.held_out_items(holdout)[self.purchased]
        for is_empty, purpose in ((held_out.all(), "train on"), (~held_out.any(), "judge by")):
            if is_empty:
                rule = f"holdout must leave a search to {purpose}"
                raise InputError(f"{rule}, got {holdout} of {total} searches")
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def held_out_items(self, holdout: float) -> np.ndarray:
        """(N,) bool, True for about that share of the items; the same ones for the same data.

        Items of an equal title or an equal picture, directly or through others, are held out
        together or not at all.
        """
        of_items = [contents.of_items for contents in self.by_modality.values()]
        alike = [np.where(of >= 0, of, np.arange(len(of))) for of in of_items]
        return hold_out_groups(connected(alike), self.item_ids, holdout)


def _map(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return map_array(folder / f"{name}.npy", shape)
