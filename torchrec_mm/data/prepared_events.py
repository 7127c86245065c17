"""An event log of any size to the folders of the data contract, through an engine."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.data.event_log import Census
from torchrec_mm.data.events import EventRules
from torchrec_mm.data.items import read_items
from torchrec_mm.data.parquet import INT64
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, put, real, refuse_existing

SPLITS = ("train", "test")


class Engine(Protocol):
    """What reads a log and brings the events of each user together, through ``requests_of``.

    folder: of the log. rules: which of its events count.
    """

    folder: Path
    rules: EventRules

    def census(self) -> Census:
        """One pass over the log."""

    def item_ids(self, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """item_id, int64: the distinct items of these kinds of events, ascending."""

    def write_requests(self, folder: Path, events: int) -> None:
        """Make ``folder/train`` and ``folder/test`` of Parquet files; ``events``: those of use."""


def write_prepared_events(engine: Engine, run_dir: Path, items: Path | None, scratch: Path) -> None:
    """Write ``items/``, ``requests/train`` and ``requests/test`` of a log.

    Args:
        engine: has opened the log.
        run_dir: folder to make; appears whole or not at all.
        items: folder with ``items/`` to copy; None: items are the ids that were shown or clicked.
        scratch: folder beside ``run_dir``, where its content is made.

    Raises:
        InputError: null or wrong type in a column, no impression or no click at all, a candidate
            that the given items lack, an empty split.
    """
    refuse_existing(run_dir)
    census, rules = engine.census(), engine.rules
    census.check(engine.folder, rules)
    if items is not None:
        _check_catalogue(items, engine.item_ids([rules.shown_event]))
    with new_folder(scratch / "data") as data:
        engine.write_requests(data / "requests", census.shown + census.clicked)
        _check_splits(data / "requests")
        if items is not None:
            shutil.copytree(items / "items", data / "items")
        else:
            _write_ids(data / "items", engine.item_ids([rules.shown_event, rules.clicked_event]))
    put(scratch / "data", real(run_dir))


def _check_catalogue(items: Path, candidates: Iterator[pa.RecordBatch]) -> None:
    index = read_items(items).index
    for batch in candidates:
        ids = batch["item_id"].to_numpy()
        unknown = ids[index.rows(ids) < 0]
        if len(unknown):
            raise InputError(f"item_id must be in {items / 'items'}, got {unknown[0]}")


def _check_splits(requests: Path) -> None:
    for split in SPLITS:
        files = (requests / split).glob("*.parquet")
        if not any(pq.read_metadata(file).num_rows for file in files):
            raise InputError(
                f"requests/{split} must hold at least one request, got 0: too few rows to split"
            )


def _write_ids(folder: Path, batches: Iterator[pa.RecordBatch]) -> None:
    folder.mkdir()
    path = folder / "part-0000.parquet"
    with pq.ParquetWriter(path, pa.schema({"item_id": INT64}), compression="zstd") as file:
        for batch in batches:
            file.write_batch(batch)
