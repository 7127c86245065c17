"""The encoded data set: every id mapped to a dense row once, then only streamed.

`apps.encode` writes it (``data/encode/encode.py`` holds the layout). Requests are Parquet row
groups, read one at a time; what is known of the items is memory-mapped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.files import data_files
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.reading import input_errors, read_metadata
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.encoded.checks import (
    check_counts,
    check_lengths,
    check_numbers,
    check_rows,
    check_weights,
)
from torchrec_mm.data.encoded.item_files import load_array, open_bags
from torchrec_mm.data.encoded.vocabulary import rows_of_tables
from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError

FORMAT = 1
NUMBERS = "numbers.npy"  # of items
LENGTHS, WEIGHT_SUMS = "lengths.npy", "weight_sums.npy"  # beside the Parquet files


@dataclass(frozen=True)
class RowGroup:
    """``num_requests`` requests from number ``first`` on, as row group ``index`` of ``file``."""

    file: Path
    index: int
    first: int
    num_requests: int


class EncodedRequests:
    """One split of an encoded data set, streamed by row group.

    items: what the item numbers mean. groups: the row groups, in file order.
    lengths: (R, 2 + sequences) int32, mapped, candidates and behaviours of each request, and those
    of each further sequence.
    num_rows: rows of each feature's table, by its vocabulary; what is read lies within them.
    weight_sums: (R, 2) float64, mapped, of each request what its impressions weigh and what those
    that were clicked do; None without weights.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Open ``folder``; of requests nothing but sizes is read.

        Raises:
            InputError: not an encoded data set of this version, no such split, two features of
                one name, or files that disagree with each other.
        """
        self.folder, self.split = folder, split
        self.meta = read_meta(folder)
        if split not in self.meta["splits"]:
            rule = f"{folder} must hold the split {split}"
            raise InputError(f"{rule}, got {', '.join(self.meta['splits'])}")
        self.num_rows = _num_rows(folder / "vocabularies.safetensors", self.meta)
        self.items = _open_items(folder / "items", self.meta, self.num_rows)
        self._checked: set[RowGroup] = set()
        requests = folder / "requests" / split
        files = data_files(requests, beside=lambda entry: entry.name in (LENGTHS, WEIGHT_SUMS))
        self._footers = {path: read_metadata(path) for path in files}
        self.groups = _row_groups(self._footers)
        self.lengths = load_array(requests / LENGTHS, np.int32)
        shape = sum(group.num_requests for group in self.groups), 2 + len(self.sequences)
        if self.lengths.shape != shape:
            rule = f"{requests / LENGTHS} must hold one row a request of the Parquet files"
            raise InputError(f"{rule}, got {self.lengths.shape}")
        check_counts(self.lengths, requests / LENGTHS)
        self.weight_sums: np.ndarray | None = None
        if split in self.meta.get("weighted", ()):
            self.weight_sums = load_array(requests / WEIGHT_SUMS, np.float64)
            if self.weight_sums.shape != (len(self), 2):
                rule = f"{requests / WEIGHT_SUMS} must be {(len(self), 2)}"
                raise InputError(f"{rule}, got {self.weight_sums.shape}")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Events of the further behaviour sequences."""
        return tuple(self.meta.get("sequences", ()))

    @property
    def sizes(self) -> dict[str, int]:
        """How many requests, impressions, behaviours and clicks."""
        return self.meta["splits"][self.split]

    @property
    def num_impressions(self) -> int:
        return self.sizes["impressions"]

    @property
    def click_rate(self) -> float:
        """Clicks per impression, weighted where there are weights."""
        if self.weight_sums is not None:
            weight, of_clicks = self.weight_sums.sum(axis=0).tolist()
            return of_clicks / weight
        return self.sizes["clicks"] / self.num_impressions

    @cached_property
    def group_starts(self) -> np.ndarray:
        """(G,) int64, number of the first request of each row group."""
        return np.array([group.first for group in self.groups], dtype=np.int64)

    def read(self, group: RowGroup) -> RequestArrays:
        """Decode one row group.

        Raises:
            InputError: the file is truncated or garbled there, or holds numbers of items or rows
                that there are not; file and row group are named.
        """
        where = f"{group.file} row group {group.index}"
        with (
            input_errors(where, "must be readable"),
            # Its footer is read once: of a large file that takes as long as a row group.
            pq.ParquetFile(
                group.file,
                metadata=self._footers[group.file],
                page_checksum_verification=True,
            ) as file,
        ):
            table = file.read_row_group(group.index, use_threads=False)
        columns = {name: table[name] for name in table.column_names}
        lists = {
            name: Jagged.from_arrow(column, f"{where} column {name}")
            for name, column in columns.items()
            if pa.types.is_list(column.type)
        }
        flat = {name: c.to_numpy() for name, c in columns.items() if name not in lists}
        try:
            arrays = RequestArrays(
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
                impression_rows={
                    n: lists[f"impression/{n}"].values
                    for n in self.meta.get("impression_features", ())
                },
                request_numbers=_stacked(flat, "request_number", self.meta.get("request_numbers")),
                impression_numbers=_stacked(
                    {name: column.values for name, column in lists.items()},
                    "impression_number",
                    self.meta.get("impression_numbers"),
                ),
                weights=None if self.weight_sums is None else lists["weights"].values,
                request_bags={
                    n: lists[f"request_bag/{n}"] for n in self.meta.get("request_bags", ())
                },
                sequences={event: lists[f"sequence/{event}"] for event in self.sequences},
            )
        except KeyError as error:
            raise InputError(f"{where} must have the column {error}") from error
        if group not in self._checked:
            check_lengths(lists, self.lengths[group.first :][: group.num_requests], where)
            self._check(arrays, where)
            self._checked.add(group)  # the pages' checksums say that it is still the same
        return arrays

    def _check(self, arrays: RequestArrays, where: str) -> None:
        num_items = len(self.items.item_ids)
        items_of = {"candidates": arrays.candidates, "behaviours": arrays.behaviours}
        items_of |= {f"sequence/{event}": items for event, items in arrays.sequences.items()}
        for name, items in items_of.items():
            check_rows(items.values, num_items, f"{where} column {name}", "numbers of items, out")
        for owner in ("request", "behaviour", "impression"):
            for name, rows in getattr(arrays, f"{owner}_rows").items():
                check_rows(rows, self.num_rows[name], f"{where} column {owner}/{name}")
        for name, bags in arrays.request_bags.items():
            check_rows(bags.values, self.num_rows[name], f"{where} column request_bag/{name}")
        for group in ("request", "impression"):
            for place, name in enumerate(self.meta.get(f"{group}_numbers", [])):
                values = getattr(arrays, f"{group}_numbers")[:, place]
                check_numbers(values, f"{where} column {group}_number/{name}")
        if arrays.weights is not None:
            assert self.weight_sums is not None  # who has weights has both
            sums = self.weight_sums[arrays.rows[0] : arrays.rows[-1] + 1]
            check_weights(arrays.weights, arrays.labels, arrays.candidates, sums, where)


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of an encoded data set; InputError if there is none, or one of another format."""
    path = folder / "meta.json"
    if not path.is_file():
        raise InputError(f"{folder} must be an encoded data set: no meta.json in it")
    meta = read_json(path)
    if meta.get("format") != FORMAT:
        raise InputError(f"{path} format must be {FORMAT}, got {meta.get('format')!r}")
    return meta


def _num_rows(path: Path, meta: Mapping[str, Any]) -> dict[str, int]:
    """Rows of each table of an encoded data set."""
    names = {group: meta[f"{group}_features"] for group in ("item", "request", "behaviour")}
    names["impression"] = meta.get("impression_features", [])
    names |= {f"{owner}_bag": meta.get(f"{owner}_bags", []) for owner in ("request", "item")}
    of_lists = names["behaviour"], names["impression"]
    of_items, of_requests = ([*names[o], *names[f"{o}_bag"]] for o in ("item", "request"))
    check_names(of_items, of_requests, *of_lists, f"{path.parent}: ")
    tables = rows_of_tables(path)
    for group, features in names.items():
        if {*features} != tables[group].keys():
            rule = f"{path} must be of the {group} features of meta.json, {', '.join(features)}"
            raise InputError(f"{rule}, got {', '.join(tables[group])}")
    return {name: rows for group in tables.values() for name, rows in group.items()}


def _stacked(
    columns: Mapping[str, np.ndarray], group: str, names: list[str] | None
) -> np.ndarray | None:
    """(n, P) of the columns ``<group>/<name>``, None without names."""
    if not names:
        return None
    return np.stack([columns[f"{group}/{name}"] for name in names], axis=1)


def _open_items(folder: Path, meta: Mapping[str, Any], num_rows: Mapping[str, int]) -> EncodedItems:
    features = meta["item_features"]
    item_ids, rows = (
        load_array(folder / "item_ids.npy", np.int64),
        load_array(folder / "rows.npy", np.int32),
    )
    if rows.shape != (len(features), len(item_ids)):
        rule = f"{folder / 'rows.npy'} must be {(len(features), len(item_ids))}"
        raise InputError(f"{rule}, got {rows.shape}")
    for name, table in zip(features, rows, strict=True):
        check_rows(table, num_rows[name], f"{folder / 'rows.npy'} of feature {name}")
    path, created_at = folder / "created_at.npy", None
    if path.exists():
        created_at = load_array(path, np.int64)
        if created_at.shape != item_ids.shape:
            raise InputError(f"{path} must be {item_ids.shape}, got {created_at.shape}")
    numbers = None
    if names := meta.get("item_numbers"):
        numbers = load_array(folder / NUMBERS, np.float32)
        if numbers.shape != (len(item_ids), len(names)):
            rule = f"{folder / NUMBERS} must be {(len(item_ids), len(names))}"
            raise InputError(f"{rule}, got {numbers.shape}")
        check_numbers(numbers.reshape(-1), f"{folder / NUMBERS}")
    bags = {
        name: open_bags(folder, place, len(item_ids), num_rows[name])
        for place, name in enumerate(meta.get("item_bags", ()))
    }
    return EncodedItems(tuple(features), item_ids, rows, created_at, numbers, bags)


def _row_groups(footers: Mapping[Path, pq.FileMetaData]) -> list[RowGroup]:
    groups, first = [], 0
    for path, metadata in footers.items():
        for index in range(metadata.num_row_groups):
            num_requests = metadata.row_group(index).num_rows
            if num_requests:
                groups.append(RowGroup(path, index, first, num_requests))
            first += num_requests
    return groups
