"""What each column of a data folder is taken for, and what it holds; streamed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.hash_index import HashIndex
from torchrec_mm.columns.jagged import values_and_offsets
from torchrec_mm.columns.numbers import in_one
from torchrec_mm.columns.parquet import INT64_LIST
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.contract.feature_settings import IGNORE, FeatureSettings, read_settings
from torchrec_mm.data.contract.features import (
    NULL,
    Bag,
    Categorical,
    Feature,
    text_ids_of,
)
from torchrec_mm.data.contract.items import NAMED as ITEM_COLUMNS
from torchrec_mm.data.contract.items import item_columns, open_items
from torchrec_mm.data.contract.request_columns import NAMED as REQUEST_COLUMNS
from torchrec_mm.data.contract.request_columns import RequestColumns, check_named, column_of
from torchrec_mm.data.contract.shared_tables import shared_tables

EXAMPLES = 3


@dataclass
class Summary:
    """Values of one column, piece by piece; memory grows with the distinct ones of a category.

    rows: values and nulls, of lists the values in them. low, high: of numbers. examples: the first
    values that differ. bags, empty: how many there are, and without a value.
    """

    column: Feature
    rows: int = 0
    missing: int = 0
    low: float = np.inf
    high: float = -np.inf
    distinct: HashIndex = field(default_factory=HashIndex)
    examples: list[Any] = field(default_factory=list)
    bags: int = 0
    empty: int = 0

    def add(self, values: pa.Array, where: str, offsets: np.ndarray | None) -> None:
        """Take values of the column's promised type; its InputErrors pass through."""
        self.rows += len(values)
        self.missing += values.null_count
        if len(self.examples) < EXAMPLES:
            first = pc.drop_null(values)[: 100 * EXAMPLES].unique().to_pylist()
            new = [value for value in first if value not in self.examples]
            self.examples += new[: EXAMPLES - len(self.examples)]
        if isinstance(self.column, Bag):
            assert offsets is not None  # of lists
            bag = self.column.ids_of(values, offsets, where)
            self.bags += len(bag)
            self.empty += int((bag.lengths == 0).sum())
            self.distinct.add(bag.values)
            return
        if isinstance(self.column, Categorical):
            ids = self.column.ids(values, where)
            self.distinct.add(ids[ids != NULL])
            return
        numbers = self.column.values(values, where, offsets)
        if values.null_count < len(values):
            self.low = min(self.low, float(np.nanmin(numbers)))
            self.high = max(self.high, float(np.nanmax(numbers)))

    def __str__(self) -> str:
        kind = str(self.column.kind).replace("item: ", "")
        missing = f"{self.missing / max(self.rows, 1):.1%} missing"
        if isinstance(self.column, Bag):
            what, held = f"bag, {self.column.pooling}", f"{len(self.distinct)} distinct"
            missing = f"{self.empty / self.bags:.1%} empty, mean length {self.rows / self.bags:.2f}"
        elif isinstance(self.column, Categorical):
            what, held = "category", f"{len(self.distinct)} distinct"
        else:
            what, held = "number", f"{self.low:g} to {self.high:g}"
            what += ", log1p" * self.column.log1p
        category = self.column.each if isinstance(self.column, Bag) else self.column
        if isinstance(category, Categorical) and category.table is not None:
            what += f", table {category.table}"
        examples = [
            f"{each:g}" if isinstance(each, float) else repr(each) for each in self.examples
        ]
        return f"{what}, {kind}, {missing}, {held}: {', '.join(examples) or 'no example'}"


@dataclass(frozen=True)
class FolderColumns:
    """The further columns of a data folder.

    catalogue, splits: its files. items, requests: features by name. settings: of features.yaml.
    """

    catalogue: ParquetFolder
    splits: list[ParquetFolder]
    items: dict[str, Feature]
    requests: RequestColumns
    settings: Mapping[str, FeatureSettings]


def folder_columns(data: Path) -> FolderColumns:
    """What the columns of ``items/`` and of the splits of ``requests/`` are; no values are read.

    Raises:
        InputError: what encoding the folder would refuse of its columns' names and types.
    """
    settings = read_settings(data)
    items = open_items(data / "items")
    splits = [ParquetFolder(split) for split in sorted((data / "requests").glob("[!._]*"))]
    check_named(settings, data, items.names, [split.names for split in splits])
    of_items, of_requests = item_columns(items), RequestColumns.of(splits, settings)
    for split in splits:
        of_requests.check(split)
    of_request, of_behaviour, of_impression = of_requests.names
    shared = shared_tables({**of_items, **of_requests.all})
    names = ("item_id", *of_items), ("user_id", *of_request), of_behaviour, of_impression
    check_names(*names, shared=shared)
    return FolderColumns(items, splits, of_items, of_requests, settings)


def describe(data: Path) -> dict[str, dict[str, str]]:
    """What each column of ``items/`` and of the splits of ``requests/`` is, by folder and name.

    Raises:
        InputError: what encoding the folder would refuse of its columns' names, types and values.
    """
    of = folder_columns(data)
    columns = of.requests
    sequences = {column_of(event): Categorical(INT64_LIST) for event in columns.sequences}
    found = {
        "items": _of_folder([of.catalogue], of.items, ITEM_COLUMNS, of.settings),
        "requests": _of_folder(
            of.splits, {**columns.all, **sequences}, REQUEST_COLUMNS, of.settings
        ),
    }
    for name in sequences:
        found["requests"][name] = found["requests"][name].replace("category", "behaviours", 1)
    for name, text_ids in text_ids_of({**of.items, **columns.all}).items():
        text_ids.check(f"column {name}")
    return found


def _of_folder(
    folders: list[ParquetFolder],
    columns: Mapping[str, Feature],
    named: Mapping[str, Any] | tuple[str, ...],
    settings: Mapping[str, FeatureSettings],
) -> dict[str, str]:
    """By name, in the order of the files."""
    summaries = {name: Summary(column) for name, column in columns.items()}
    for name, values, where, offsets in _values(folders, columns):
        summaries[name].add(values, where, offsets)
    words = {name: str(summary) for name, summary in summaries.items()}
    words |= dict.fromkeys(named, "named by the contract")
    words |= {name: "ignored" for name, said in settings.items() if said.kind == IGNORE}
    return {name: words[name] for name in dict.fromkeys(n for f in folders for n in f.names)}


def _values(
    folders: list[ParquetFolder], columns: Mapping[str, Feature]
) -> Iterator[tuple[str, pa.Array, str, np.ndarray | None]]:
    """Pieces of columns: name, values, what to call them in complaints, and offsets of lists."""
    types = {name: column.kind for name, column in columns.items()}
    for folder in folders if types else ():
        for table, where in folder.chunks({}, types):
            for name in types:
                values, offsets = in_one(table[name]), None
                if pa.types.is_list(values.type):
                    values, offsets = values_and_offsets(table[name])
                yield name, values, f"{where} column {name}", offsets
