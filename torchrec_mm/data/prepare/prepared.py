"""What an adapter makes of a user's own data, how it is written, and what its footers tell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import copyfile, copytree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.text_ids import MAPS
from torchrec_mm.data.contract.feature_settings import FILE
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.contract.settings_file import put_settings
from torchrec_mm.data.logs.id_maps import hash_items, text_of, write_map
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder


@dataclass(frozen=True)
class Prepared:
    """Tables in the layout of the data contract.

    items: a table, or a folder of Parquet files to copy as it is. searches: None where unknown.
    no_click: what may be wrong where no label is 1. notes: a line on each thing worth knowing.
    texts: rows of MAP_SCHEMA of the ids that were text, by column. settings: features.yaml to copy;
    None: one is written that says nothing.
    """

    items: pa.Table | Path
    train: pa.Table
    test: pa.Table
    searches: pa.Table | None = None
    no_click: str = ""
    notes: tuple[str, ...] = ()
    texts: Mapping[str, Sequence[pa.Table]] = field(default_factory=dict)
    settings: Path | None = None


def write_prepared(run_dir: Path, prepared: Prepared) -> list[str]:
    """Write ``items/``, ``requests/`` and features.yaml; ``searches/`` and ``ids/`` if any.

    Returns:
        ``prepared.notes``, and more on what cannot be measured.

    Raises:
        InputError: one of the two splits would be empty, no label is 1, two texts have one id, a
            column can be no feature, or ``run_dir`` exists.
    """
    with new_folder(run_dir) as folder:
        write_table(folder / "requests" / "train" / "part-0000.parquet", prepared.train)
        write_table(folder / "requests" / "test" / "part-0000.parquet", prepared.test)
        splits = read_splits(folder / "requests", prepared.no_click)
        if isinstance(prepared.items, Path):
            with input_errors(prepared.items, "could not be copied"):
                copytree(prepared.items, folder / "items")
        else:
            write_table(folder / "items" / "part-0000.parquet", prepared.items)
        if prepared.searches is not None:
            write_table(folder / "searches" / "part-0000.parquet", prepared.searches)
        for name, texts in prepared.texts.items():
            write_map(folder / "ids" / MAPS[name], name, texts, folder / "texts")
        put_settings(folder, prepared.settings)
    return [*prepared.notes, *notes_on(splits)]


def given_settings(data: Path | None) -> Path | None:
    """features.yaml of a folder that holds ``items/``, where it has one."""
    return data / FILE if data is not None and (data / FILE).is_file() else None


def items_for(
    requests: pa.Table, data: Path | None, texts: Sequence[pa.Table] | None, scratch: Path
) -> pa.Table | Path:
    """The ``items/`` folder of ``data``; without it, a table of every id in ``requests``.

    Args:
        requests: of both splits. data: folder that holds ``items/``. texts: rows of MAP_SCHEMA,
            where ids of items are text; None where they are numbers. scratch: folder to make, for
            a copy of ``items/`` with numbers for text.

    Raises:
        InputError: ``data/items`` is no catalogue, lacks a candidate or is of another clock.
    """
    candidates = Jagged.from_arrow(requests["candidate_item_ids"], "candidate_item_ids").values
    if data is None:
        past = Jagged.from_arrow(requests["behaviour_item_ids"], "behaviour_item_ids").values
        return pa.table({"item_id": np.unique(np.concatenate([candidates, past]))})
    times = requests["timestamp"].to_numpy() if "timestamp" in requests.column_names else None
    span = None if times is None else (times.min(), times.max())
    if texts is None:
        check_items(data, [candidates], span)
        return data / "items"
    copy_text_items(data, scratch, [candidates], span, partial(text_of, texts=texts))
    return scratch / "items"


def copy_text_items(
    given: Path,
    copy: Path,
    candidates: Iterable[np.ndarray],
    times: tuple[int, int] | None,
    name_of: Callable[[int], str],
) -> None:
    """``hash_items``, and ``check_items`` of the copy in words of what was given."""
    hash_items(given, copy)
    if settings := given_settings(given):
        copyfile(settings, copy / FILE)
    try:
        check_items(copy, candidates, times, name_of)
    except InputError as error:  # files of the copy are called as those that the user has
        raise InputError(str(error).replace(str(copy), str(given))) from error


def check_items(
    data: Path,
    candidates: Iterable[np.ndarray],
    times: tuple[int, int] | None,
    name_of: Callable[[int], object] = int,
) -> None:
    """Refuse a catalogue that does not go with the requests.

    Args:
        data: folder that holds ``items/``. candidates: int64 ids, in any number of arrays.
        times: of the first and the last request, None where they have none.
        name_of: what the user calls an id.

    Raises:
        InputError: no catalogue, one of another clock, or without one of the candidates.
    """
    catalogue = read_items(data)
    if times is not None:
        catalogue.check_clock(data / "items", *times)
    index = catalogue.index
    for item_ids in candidates:
        unknown = item_ids[index.rows(item_ids) < 0]
        if len(unknown):
            raise InputError(f"item_id must be in {data / 'items'}, got {name_of(unknown[0])}")


SPLITS = {"train": "nothing is learned from it", "test": "it has neither AUC nor GAUC"}


@dataclass(frozen=True)
class Split:
    """requests, impressions: how many. labels: the different ones."""

    requests: int
    impressions: int
    labels: frozenset[int]

    @classmethod
    def of(cls, folder: Path) -> "Split":
        """Count in the Parquet files of a folder that this package or Spark has written."""
        requests = impressions = 0
        labels: set[int] = set()
        for file in folder.glob("*.parquet"):
            footer = pq.read_metadata(file)
            requests += footer.num_rows
            for group in map(footer.row_group, range(footer.num_row_groups)):
                if group.num_rows:
                    column = _labels(group)
                    impressions += column.num_values
                    labels |= {column.statistics.min, column.statistics.max}
        return cls(requests, impressions, frozenset(labels))


def read_splits(requests: Path, no_click: str) -> dict[str, Split]:
    """The splits below a folder ``requests/``, by name.

    Args:
        requests: folder of the splits. no_click: what may be wrong where no label is 1.

    Raises:
        InputError: one split holds no request, or none of them a label 1.
    """
    splits = {name: Split.of(requests / name) for name in SPLITS}
    for name, split in splits.items():
        if split.requests == 0:
            rule = f"requests/{name} must hold at least one request"
            raise InputError(f"{rule}, got 0: too few rows to split")
    if not any(1 in split.labels for split in splits.values()):
        impressions = sum(split.impressions for split in splits.values())
        rule = "requests must hold a label 1"
        raise InputError(f"{rule}, got 0 for all {impressions} impressions: {no_click}")
    return splits


def notes_on(splits: dict[str, Split]) -> list[str]:
    """A line on each split of one label alone."""
    return [
        f"requests/{name} holds label {min(split.labels)} alone: {SPLITS[name]}"
        for name, split in splits.items()
        if len(split.labels) == 1
    ]


def _labels(group: pq.RowGroupMetaData) -> pq.ColumnChunkMetaData:
    columns = map(group.column, range(group.num_columns))
    return next(column for column in columns if column.path_in_schema.startswith("labels."))
