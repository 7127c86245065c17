"""An event log of any size to the folders of the data contract, through an engine."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.prepare.event_counts import EventCounts
from torchrec_mm.data.prepare.events import EventRules
from torchrec_mm.data.prepare.prepared import Split, check_items, notes_on, read_splits
from torchrec_mm.files import new_folder, put, real, refuse_existing


class Engine(Protocol):
    """What reads a log and brings the events of each user together, through ``requests_of``.

    folder: of the log. rules: which of its events count.
    """

    folder: Path
    rules: EventRules

    def count_events(self) -> EventCounts:
        """One pass over the log."""

    def item_ids(self, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """item_id, int64: the distinct items of these kinds of events, ascending."""

    def write_requests(self, folder: Path, events: int) -> None:
        """Make ``folder/train`` and ``folder/test`` of Parquet files; ``events``: those of use."""

    def close(self) -> None:
        """Let go of the log."""


def write_prepared_events(
    engine: Engine, run_dir: Path, items: Path | None, scratch: Path
) -> list[str]:
    """Write ``items/``, ``requests/train`` and ``requests/test`` of a log.

    Args:
        engine: has opened the log.
        run_dir: folder to make; appears whole or not at all.
        items: folder with ``items/`` to copy; None: items are the ids that were shown or clicked.
        scratch: folder beside ``run_dir``, where its content is made.

    Returns:
        A line on each thing worth knowing: what was left out, what cannot be measured.

    Raises:
        InputError: null, wrong type or unit in a column, no impression or no click at all, no click
            that an impression explains, a candidate that the given items lack or items of another
            clock, an empty split.
    """
    refuse_existing(run_dir)
    counts, rules = engine.count_events(), engine.rules
    counts.check(engine.folder)
    if items is not None:
        assert counts.first is not None and counts.last is not None  # every event has a time
        shown = (batch["item_id"].to_numpy() for batch in engine.item_ids([rules.shown_event]))
        check_items(items, shown, (counts.first, counts.last))
    with new_folder(scratch / "data") as data:
        engine.write_requests(data / "requests", counts.shown + counts.clicked)
        splits = read_splits(
            data / "requests",
            f"none of {counts.clicked} clicks came at most attribution_s = {rules.attribution_s} "
            "seconds after its user was shown its item",
        )
        if items is not None:
            with input_errors(items / "items", "could not be copied"):
                shutil.copytree(items / "items", data / "items")
        else:
            _write_ids(data / "items", engine.item_ids([rules.shown_event, rules.clicked_event]))
    put(scratch / "data", real(run_dir))
    return [*_left_out(counts, splits), *notes_on(splits)]


def _left_out(counts: EventCounts, splits: dict[str, Split]) -> Iterator[str]:
    repeated = counts.shown - sum(split.impressions for split in splits.values())
    if counts.left_out():
        yield counts.left_out()
    if repeated:
        yield (
            f"{repeated} of {counts.shown} impressions repeat another of the same user, item and "
            "second, and are left out; so are such clicks"
        )


def _write_ids(folder: Path, batches: Iterator[pa.RecordBatch]) -> None:
    folder.mkdir()
    path = folder / "part-0000.parquet"
    with pq.ParquetWriter(path, pa.schema({"item_id": INT64}), compression="zstd") as file:
        for batch in batches:
            file.write_batch(batch)
