"""`items/`: what is known of every item besides its picture and title, and some rows in full."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.files import pictures
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.names import refuse_lookalikes
from torchrec_mm.columns.numbers import in_one, to_arrow, to_numpy
from torchrec_mm.columns.parquet import BINARY, INT64, STRING, check_columns
from torchrec_mm.columns.parquet_folder import ParquetFolder, concat_files
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.seconds import check_one_clock, check_seconds
from torchrec_mm.data.contract.feature_settings import read_settings
from torchrec_mm.data.contract.features import (
    CATEGORIES,
    CATEGORY_LISTS,
    NUMBERS,
    Bag,
    Categorical,
    Feature,
    Kinds,
    Numeric,
    feature_columns,
    of_kind,
)
from torchrec_mm.ids import IdIndex, sort_unique

ITEM_ID = {"item_id": INT64}
CONTENTS = {"title": STRING, "image": BINARY, "image_path": STRING}
CREATED_AT = {"created_at": INT64}
NAMED = ITEM_ID | CONTENTS | CREATED_AT
KINDS = Kinds(CATEGORIES, NUMBERS, CATEGORY_LISTS)


@dataclass(frozen=True)
class ItemCatalogue:
    """All items, sorted by id; row i of every array is the same item.

    item_ids: (N,) int64, strictly ascending.
    created_at: (N,) int64 seconds, ``UNKNOWN_TIME`` where not known; None without the column.
    attributes: ids of the attributes by column name, each (N,) int64. numbers: likewise, (N,)
    float64, NaN for null. columns: what both are, and the bags, by name.
    """

    UNKNOWN_TIME = np.iinfo(np.int64).min

    item_ids: np.ndarray
    created_at: np.ndarray | None
    attributes: Mapping[str, np.ndarray]
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: Mapping[str, Feature] = field(default_factory=dict)

    @property
    def index(self) -> IdIndex:
        return IdIndex(self.item_ids)

    @property
    def bags(self) -> dict[str, Bag]:
        """The multi-hot attributes by name; their values are not held here."""
        return of_kind(self.columns, Bag)

    def check_clock(self, where: Path | str, first: int, last: int) -> None:
        """Refuse times of another clock than that of requests from ``first`` to ``last``.

        ``where`` names the items. See ``check_one_clock``.
        """
        if self.created_at is not None:
            known = self.created_at[self.created_at != self.UNKNOWN_TIME]
            check_one_clock(where, known, first, last)

    def __len__(self) -> int:
        return len(self.item_ids)


def read_items(data: Path) -> ItemCatalogue:
    """The catalogue of a data folder: ``read_catalogue`` of its ``items/``."""
    return read_catalogue(data / "items")


def read_catalogue(folder: Path, known: Mapping[str, Feature] | None = None) -> ItemCatalogue:
    """Read a folder in the layout of ``items/``, without pictures, titles and bags.

    ``known``: see ``item_columns``.

    Raises:
        InputError: missing folder or column, wrong type or unit, duplicate item_id.
    """
    items = open_items(folder)
    columns = item_columns(items, known)
    attributes, numbers = of_kind(columns, Categorical), of_kind(columns, Numeric)
    scalars: dict[str, Feature] = {**attributes, **numbers}
    types = {name: column.kind for name, column in scalars.items()}
    table = items.read(ITEM_ID, CREATED_AT | types)
    item_ids = to_numpy(table["item_id"])
    order = sort_unique(item_ids, f"{folder} column item_id")
    created_at = None
    if "created_at" in items.names:
        check_seconds(folder, "created_at", table["created_at"])
        unknown = to_arrow(np.full(len(table), ItemCatalogue.UNKNOWN_TIME))
        created_at = to_numpy(pc.coalesce(table["created_at"], unknown))[order]
    return ItemCatalogue(
        item_ids[order],
        created_at,
        {
            name: column.ids(in_one(table[name]), f"{folder} column {name}")[order]
            for name, column in attributes.items()
        },
        {
            name: column.values(in_one(table[name]), f"{folder} column {name}")[order]
            for name, column in numbers.items()
        },
        columns,
    )


def read_bags(
    folder: Path, bags: Mapping[str, Bag]
) -> Iterator[tuple[np.ndarray, dict[str, Jagged]]]:
    """Bags of the items of a folder like ``items/``, in the order of its files.

    Yields:
        (n,) int64 item ids and, by name, n lists of int64 ids, in pieces that fit in memory.

    Raises:
        InputError: a null in a list, and what ``ParquetFolder.chunks`` refuses.
    """
    types = {name: bag.kind for name, bag in bags.items()}
    for table, where in open_items(folder).chunks(ITEM_ID, types) if bags else ():
        lists = {name: bag.ids(table[name], f"{where} column {name}") for name, bag in bags.items()}
        yield to_numpy(table["item_id"]), lists


def open_items(folder: Path) -> ParquetFolder:
    """A folder in the layout of ``items/``, which may hold pictures besides."""
    items = ParquetFolder(folder, beside=pictures)
    refuse_lookalikes(folder, items.names, ITEM_ID | CONTENTS | CREATED_AT)
    return items


def attribute_columns(items: ParquetFolder) -> dict[str, Categorical]:
    """The categorical ones among ``item_columns``."""
    return of_kind(item_columns(items), Categorical)


def item_columns(
    items: ParquetFolder, known: Mapping[str, Feature] | None = None
) -> dict[str, Feature]:
    """The attributes among the columns of ``items/``, by name; `features.yaml` has its say.

    Args:
        known: attributes of a model; the others are not looked at. None: all must be usable.

    Raises:
        InputError: a further column that is of no kind that can be an attribute, or not of the
            same in all files.
    """
    settings = read_settings(items.folder.parent) if known is None else {}
    return feature_columns([items], NAMED, lambda name: KINDS, settings, known)


def read_rows(folder: Path, item_ids: np.ndarray, nullable: Mapping[str, pa.DataType]) -> pa.Table:
    """item_id and the columns ``nullable`` that are there, of those items that are there.

    Of row groups without one of the items, only the ids are read.

    Args:
        folder: in the layout of ``items/``. item_ids: (n,) int64.

    Raises:
        InputError: a missing folder, an unreadable file, a column of the wrong type.
    """
    items = open_items(folder)
    items.check(ITEM_ID, nullable)
    types = ITEM_ID | {name: nullable[name] for name in nullable if name in items.names}
    wanted = pa.array(item_ids, INT64)
    found = [pa.schema(types).empty_table()]
    for file in items.files:
        for table, where in read_chunks(file, list(types), _groups_with(file, wanted)):
            table = check_columns(table, where, ITEM_ID, nullable).select(list(types))
            found.append(table.filter(pc.is_in(table["item_id"], wanted)))
    return concat_files(found)


def read_titles(data: Path, item_ids: np.ndarray) -> dict[int, str]:
    """Titles of the items that have one, by item_id; only their rows are kept.

    Args:
        data: folder that holds items/.
        item_ids: (n,) int64.

    Raises:
        InputError: ``data/items`` is missing or not what it should be.
    """
    table = read_rows(data / "items", item_ids, {"title": STRING})
    if "title" not in table.column_names:
        return {}
    rows = zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item_id: title for item_id, title in rows if title}


def _groups_with(file: Path, wanted: pa.Array) -> list[int]:
    """Row groups of the file that hold one of the wanted ids."""
    with input_errors(file), pq.ParquetFile(file) as parquet:
        ids = [
            parquet.read_row_group(group, ["item_id"])["item_id"].cast(INT64)
            for group in range(parquet.num_row_groups)
        ]
        return [group for group, each in enumerate(ids) if pc.any(pc.is_in(each, wanted)).as_py()]
