"""An event log of any size to the folders of the data contract, through an engine."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.text_ids import MAPS
from torchrec_mm.columns.time_units import IN_A_SECOND
from torchrec_mm.data.contract.settings_file import put_settings
from torchrec_mm.data.logs.file_forms import found_out
from torchrec_mm.data.logs.id_maps import read_item_texts, text_of, write_map
from torchrec_mm.data.prepare.event_counts import EventCounts
from torchrec_mm.data.prepare.event_log import EventLog
from torchrec_mm.data.prepare.events import IMPRESSION
from torchrec_mm.data.prepare.prepared import (
    Split,
    check_items,
    copy_text_items,
    given_settings,
    notes_on,
    read_splits,
)
from torchrec_mm.data.prepare.sittings import changes
from torchrec_mm.files import new_folder, put, real, refuse_existing


class Engine(Protocol):
    """What reads a log and brings the events of each user together, through ``requests_of``."""

    log: EventLog

    def count_events(self) -> EventCounts:
        """One pass over the log; comes first."""

    def item_ids(self) -> Iterator[pa.RecordBatch]:
        """item_id, kind: the distinct pairs, by item_id."""

    def texts(self, name: str) -> Iterator[pa.RecordBatch]:
        """MAP_SCHEMA: the distinct ids of a column of text and their texts, in any order."""

    def write_requests(self, folder: Path, counts: EventCounts, in_a_second: int) -> None:
        """Make ``folder/train`` and ``folder/test`` of Parquet files.

        ``in_a_second``: units of the log's times.
        """

    def close(self) -> None:
        """Let go of the log."""


def write_prepared_events(
    engine: Engine, run_dir: Path, items: Path | None, scratch: Path
) -> list[str]:
    """Write ``items/``, ``requests/``, features.yaml and, of text ids, ``ids/``.

    Args:
        engine: has opened the log.
        run_dir: folder to make; appears whole or not at all.
        items: folder with ``items/`` to copy, features.yaml too if it has one; None: items are the
            ids of all events of use.
        scratch: folder beside ``run_dir``, where its content is made.

    Returns:
        A line on each thing worth knowing: what was left out, what cannot be measured.

    Raises:
        InputError: more bad rows than may be, times of no unit or of two, no impression or no click
            at all, no click that an impression explains, a candidate that the given items lack or
            items of another clock, an empty split.
    """
    refuse_existing(run_dir)
    settings = given_settings(items)
    counts, log = engine.count_events(), engine.log
    counts.check(log.folder, log.log_format)
    unit = counts.times.unit(log.folder, log.log_format)
    if items is not None:
        items = _checked_items(engine, items, counts.times.seconds(unit), scratch / "catalogue")
    with new_folder(scratch / "data") as data:
        engine.write_requests(data / "requests", counts, IN_A_SECOND[unit])
        splits = read_splits(
            data / "requests",
            f"none of {counts.clicked} clicks came at most attribution_s = "
            f"{log.rules.attribution_s} seconds after its user was shown its item",
        )
        if items is not None:
            with input_errors(items / "items", "could not be copied"):
                shutil.copytree(items / "items", data / "items")
        else:
            _write_ids(data / "items", engine.item_ids())
        for name in log.text_ids:
            texts = [engine.texts(name)]
            if name == "item_id" and items is not None:
                texts.append(read_item_texts(items))
            write_map(data / "ids" / MAPS[name], name, chain(*texts), scratch / "texts")
        put_settings(data, settings)
    put(scratch / "data", real(run_dir))
    notes = (
        *found_out(log.files, log.log_format),
        *counts.notes(log.log_format, unit),
        *_repeated(counts, splits),
    )
    return [*notes, *notes_on(splits)]


def _checked_items(engine: Engine, given: Path, times: tuple[int, int], scratch: Path) -> Path:
    """The folder that holds ``items/`` with numbers for ids: the one given, or a copy.

    ``scratch``: where the copy is made. InputError: see ``check_items``.
    """
    if "item_id" not in engine.log.text_ids:
        check_items(given, _shown_items(engine), times)
        return given
    name_of = partial(text_of, texts=engine.texts("item_id"))
    copy_text_items(given, scratch, _shown_items(engine), times, name_of)
    return scratch


def _shown_items(engine: Engine) -> Iterator[np.ndarray]:
    for batch in engine.item_ids():
        shown = batch.filter(pc.equal(batch["kind"], IMPRESSION))
        yield shown["item_id"].to_numpy()


def _repeated(counts: EventCounts, splits: dict[str, Split]) -> Iterator[str]:
    repeated = counts.shown - sum(split.impressions for split in splits.values())
    if repeated:
        yield (
            f"{repeated} of {counts.shown} impressions repeat another of the same user, item and "
            "second, and are left out; so are such clicks"
        )


def _write_ids(folder: Path, batches: Iterator[pa.RecordBatch]) -> None:
    folder.mkdir()
    path, last = folder / "part-0000.parquet", None
    with pq.ParquetWriter(path, pa.schema({"item_id": INT64}), compression="zstd") as file:
        for batch in batches:
            ids = batch["item_id"].to_numpy()
            first = changes(ids)
            if len(ids):
                first[0] = ids[0] != last
                last = ids[-1]
            file.write_table(pa.table({"item_id": ids[first]}))
