"""The encoded data set: every id mapped to a dense row once, then only streamed.

`apps.encode` writes it (``data/encode.py`` holds the layout). Requests are Parquet row groups, read
one at a time; what is known of the items is memory-mapped.

Shape letters: U items, F item tables, n requests of a row group.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.data.jagged import Jagged
from torchrec_mm.errors import InputError
from torchrec_mm.tables.files import data_files
from torchrec_mm.tables.reading import input_errors, read_metadata

FORMAT = 1
LENGTHS = "lengths.npy"  # beside the Parquet files


@dataclass(frozen=True)
class EncodedItems:
    """What the requests' item numbers mean; all arrays memory-mapped.

    item_ids: (U,) int64, strictly ascending. rows: (F, U) int32 table rows, in the order of
    ``features``. created_at: (U,) int64 seconds, or None.
    """

    features: tuple[str, ...]
    item_ids: np.ndarray
    rows: np.ndarray
    created_at: np.ndarray | None


@dataclass(frozen=True)
class RowGroup:
    """``num_requests`` requests from number ``first`` on, as row group ``index`` of ``file``."""

    file: Path
    index: int
    first: int
    num_requests: int


@dataclass(frozen=True)
class RequestArrays:
    """Some requests in memory, columns as flat arrays.

    rows: (n,) int64, their numbers in the data set. user_ids: (n,) int64.
    timestamps: (n,) int64 seconds, or None. request_rows: (n,) int32 table rows by feature.
    candidates, behaviours: item numbers in [0, U), int32. labels: int8, as the candidates' values.
    behaviour_rows: int32 table rows by behaviour feature, aligned with ``behaviours.values``.
    """

    rows: np.ndarray
    user_ids: np.ndarray
    timestamps: np.ndarray | None
    request_rows: Mapping[str, np.ndarray]
    candidates: Jagged
    labels: np.ndarray
    behaviours: Jagged
    behaviour_rows: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> "RequestArrays":
        """The requests at positions ``chosen``, in that order."""
        candidates, at_candidates = self.candidates.take(chosen)
        behaviours, at_behaviours = self.behaviours.take(chosen)
        return RequestArrays(
            self.rows[chosen],
            self.user_ids[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
            {name: rows[chosen] for name, rows in self.request_rows.items()},
            candidates,
            self.labels[at_candidates],
            behaviours,
            {name: rows[at_behaviours] for name, rows in self.behaviour_rows.items()},
        )

    @classmethod
    def concatenate(cls, parts: "list[RequestArrays]") -> "RequestArrays":
        """All of them, one after another; at least one part."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.user_ids for part in parts]),
            None
            if first.timestamps is None
            else np.concatenate([part.timestamps for part in parts]),
            {n: np.concatenate([p.request_rows[n] for p in parts]) for n in first.request_rows},
            Jagged.concatenate([part.candidates for part in parts]),
            np.concatenate([part.labels for part in parts]),
            Jagged.concatenate([part.behaviours for part in parts]),
            {n: np.concatenate([p.behaviour_rows[n] for p in parts]) for n in first.behaviour_rows},
        )


class EncodedRequests:
    """One split of an encoded data set, streamed by row group.

    items: what the item numbers mean. groups: the row groups, in file order.
    lengths: (R, 2) int32 memmap, candidates and behaviours of each request.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Open ``folder``; nothing but sizes is read.

        Raises:
            InputError: not an encoded data set of this version, no such split, or files that
                disagree with each other.
        """
        self.folder, self.split = folder, split
        self.meta = read_meta(folder)
        if split not in self.meta["splits"]:
            raise InputError(
                f"{folder} must hold the split {split}, got {', '.join(self.meta['splits'])}"
            )
        self.items = _open_items(folder / "items", tuple(self.meta["item_features"]))
        requests = folder / "requests" / split
        self.groups = _row_groups(requests)
        self.lengths = _load(requests / LENGTHS)
        if self.lengths.shape != (sum(group.num_requests for group in self.groups), 2):
            raise InputError(
                f"{requests / LENGTHS} must hold one row a request of the Parquet files, "
                f"got {self.lengths.shape}"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> dict[str, int]:
        """How many requests, impressions, behaviours and clicks."""
        return self.meta["splits"][self.split]

    @property
    def num_impressions(self) -> int:
        return self.sizes["impressions"]

    @property
    def click_rate(self) -> float:
        """Clicks per impression."""
        return self.sizes["clicks"] / self.num_impressions

    @cached_property
    def group_starts(self) -> np.ndarray:
        """(G,) int64, number of the first request of each row group."""
        return np.array([group.first for group in self.groups], dtype=np.int64)

    def read(self, group: RowGroup) -> RequestArrays:
        """Decode one row group.

        Raises:
            InputError: the file is truncated or garbled there; file and row group are named.
        """
        with (
            input_errors(f"{group.file} row group {group.index}", "must be readable"),
            pq.ParquetFile(group.file, page_checksum_verification=True) as file,
        ):
            table = file.read_row_group(group.index, use_threads=False)
        columns = {name: table[name] for name in table.column_names}
        lists = {
            name: Jagged.from_arrow(column, f"{group.file} column {name}")
            for name, column in columns.items()
            if pa.types.is_list(column.type)
        }
        flat = {name: c.to_numpy() for name, c in columns.items() if name not in lists}
        return RequestArrays(
            rows=np.arange(group.first, group.first + group.num_requests),
            user_ids=flat["user_id"],
            timestamps=flat.get("timestamp"),
            request_rows={n: flat[f"request/{n}"] for n in self.meta["request_features"]},
            candidates=lists["candidates"],
            labels=lists["labels"].values,
            behaviours=lists["behaviours"],
            behaviour_rows={
                n: lists[f"behaviour/{n}"].values for n in self.meta["behaviour_features"]
            },
        )


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of an encoded data set.

    Raises:
        InputError: there is none, or one of another format.
    """
    path = folder / "meta.json"
    if not path.is_file():
        raise InputError(f"{folder} must be an encoded data set: no meta.json in it")
    meta = json.loads(path.read_text())
    if meta.get("format") != FORMAT:
        raise InputError(f"{path} format must be {FORMAT}, got {meta.get('format')!r}")
    return meta


def _open_items(folder: Path, features: tuple[str, ...]) -> EncodedItems:
    item_ids, rows = _load(folder / "item_ids.npy"), _load(folder / "rows.npy")
    if rows.shape != (len(features), len(item_ids)):
        raise InputError(
            f"{folder / 'rows.npy'} must be {(len(features), len(item_ids))}, got {rows.shape}"
        )
    created_at = folder / "created_at.npy"
    return EncodedItems(
        features, item_ids, rows, _load(created_at) if created_at.exists() else None
    )


def _row_groups(folder: Path) -> list[RowGroup]:
    groups, first = [], 0
    for path in data_files(folder, beside=lambda entry: entry.name == LENGTHS):
        metadata = read_metadata(path)
        for index in range(metadata.num_row_groups):
            num_requests = metadata.row_group(index).num_rows
            if num_requests:
                groups.append(RowGroup(path, index, first, num_requests))
            first += num_requests
    return groups


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a whole .npy array: {error}") from error
