"""Packed content: pictures and texts of items and searches, memory-mapped, in any order at once.

``data/pack.py`` writes it, and holds its layout. Rows number everything: [0, N) are the items in
ascending id, [N, N + S) the searches in order of (timestamp, search_id).

Shape letters: N items, S searches, H hard-negative slots, n rows asked for.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.data.holdout import hold_out_items, hold_out_latest
from torchrec_mm.errors import InputError

FORMAT = 1


@dataclass(frozen=True)
class Contents:
    """One modality of all rows; everything is memory-mapped.

    is_text: what ``read`` gives. start, length: (N + S,) int64, where a row's bytes are; length
    -1 where it has none. content: (N + S,) int64, the first row with equal bytes, -1 where there
    are none. is_path: (N + S,) bool, True where the bytes are a picture's path; None for texts.
    """

    data: np.ndarray
    start: np.ndarray
    length: np.ndarray
    content: np.ndarray
    is_path: np.ndarray | None
    num_items: int

    @property
    def lengths(self) -> np.ndarray:
        """(N + S,) int64 bytes, -1 where missing."""
        return self.length

    @cached_property
    def present(self) -> np.ndarray:
        """(N + S,) bool, True where the row has the modality."""
        return self.length >= 0

    @property
    def of_items(self) -> np.ndarray:
        """(N,) ``content`` of the items."""
        return self.content[: self.num_items]

    @property
    def of_queries(self) -> np.ndarray:
        """(S,) ``content`` of the searches."""
        return self.content[self.num_items :]

    def read(self, rows: np.ndarray) -> list[bytes | Path] | list[str]:
        """Some rows that have the modality: (n,) int64 -> n pictures, or n texts.

        A picture is its encoded bytes, or the path of a file.
        """
        spans = zip(self.start[rows].tolist(), self.length[rows].tolist(), strict=True)
        values = [self.data[start : start + length].tobytes() for start, length in spans]
        if self.is_path is None:
            return [value.decode() for value in values]
        paths = self.is_path[rows].tolist()
        return [Path(v.decode()) if path else v for v, path in zip(values, paths, strict=True)]


class PackedContent:
    """Items and searches, ready to be read by row. Open with ``PackedContent.open``.

    item_ids: (N,) int64, strictly ascending. attributes: (N,) int64 by name. search_ids,
    timestamps: (S,) int64. purchased: (S,) int64 rows of items. hard: (S, H) int64 rows of items
    clicked and not bought, -1 in empty slots. by_modality: "image" and/or "text".
    """

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder = folder
        self.num_items, self.num_searches = meta["items"], meta["searches"]
        self.fingerprint: str = meta["fingerprint"]
        items, searches = self.num_items, self.num_searches
        self.item_ids = _map(folder / "item_ids.npy", np.int64, (items,))
        names = meta["attributes"]
        table = _map(folder / "attributes.npy", np.int64, (len(names), items))
        self.attributes = dict(zip(names, table, strict=True))
        self.search_ids = _map(folder / "search_ids.npy", np.int64, (searches,))
        self.timestamps = _map(folder / "timestamps.npy", np.int64, (searches,))
        self.purchased = _map(folder / "purchased.npy", np.int64, (searches,))
        self.hard = _map(folder / "hard.npy", np.int64, (searches, meta["hard_slots"]))
        self.by_modality = {name: self._contents(name) for name in meta["modalities"]}

    @classmethod
    def open(cls, folder: Path) -> "PackedContent":
        """Map a packed folder.

        Raises:
            InputError: not such a folder, or one of its files is missing or cut short.
        """
        path = folder / "meta.json"
        try:
            meta = json.loads(path.read_text())
        except OSError as error:
            raise InputError(f"packed must be a folder of apps.pack, got {folder}") from error
        except ValueError as error:
            raise InputError(f"{path} must be JSON: {error}") from error
        found = meta.get("format") if isinstance(meta, dict) else meta
        if found != FORMAT:
            raise InputError(f"{path} format must be {FORMAT}, got {found!r}")
        return cls(folder, meta)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the folder again."""
        return PackedContent.open, (self.folder,)

    def fused_ids(self) -> np.ndarray:
        """(N + S,) int64, equal where all modalities are equal, -1 where there is none."""
        columns = [contents.content for contents in self.by_modality.values()]
        if len(columns) == 1:
            return np.asarray(columns[0])
        first = np.lexsort(columns)
        same = np.logical_and.reduce([c[first][1:] == c[first][:-1] for c in columns])
        group = np.concatenate([[0], np.cumsum(~same)])
        ids = np.empty(len(first), dtype=np.int64)
        ids[first] = group
        return np.where(np.logical_or.reduce([c >= 0 for c in columns]), ids, -1)

    def held_out_items(self, holdout: float) -> np.ndarray:
        """(N,) bool, True for about ``holdout`` of the items; of equal contents all or none."""
        contents = [contents.of_items for contents in self.by_modality.values()]
        return hold_out_items(self.item_ids, contents, holdout)

    def split(self, holdout: float, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Searches to train on and searches held out, int64 in [0, S), ascending.

        Args:
            holdout: share, in (0, 1). by: "time": the latest searches, at least one; "item": the
                searches of ``held_out_items``.

        Raises:
            InputError: no search is left on one of the two sides.
        """
        if by == "time":
            held_out = hold_out_latest(self.num_searches, holdout)
        else:
            held_out = self.held_out_items(holdout)[self.purchased]
        if held_out.all() or not held_out.any():
            raise InputError(
                f"holdout must leave a search to train on and one to judge by, got {holdout} of "
                f"{self.num_searches} searches by {by}"
            )
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def _contents(self, modality: str) -> Contents:
        folder, rows = self.folder / modality, (self.num_items + self.num_searches,)
        return Contents(
            _map_bytes(folder / "bytes.bin"),
            _map(folder / "start.npy", np.int64, rows),
            _map(folder / "length.npy", np.int64, rows),
            _map(folder / "content.npy", np.int64, rows),
            _map(folder / "is_path.npy", np.bool_, rows) if modality == "image" else None,
            self.num_items,
        )


def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} must be a whole .npy array: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{path} must be {np.dtype(dtype)} {shape} as meta.json says, "
            f"got {array.dtype} {array.shape}"
        )
    return array


def _map_bytes(path: Path) -> np.ndarray:
    try:
        return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else _NOTHING
    except OSError as error:
        raise InputError(f"{path} must be readable: {error}") from error


_NOTHING = np.zeros(0, dtype=np.uint8)
