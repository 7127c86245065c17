"""What came of what was shown: labels, or events, in a log of any form, kept aside as Parquet."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.log_files import log_files
from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.columns.time_units import IN_A_SECOND
from torchrec_mm.data.logs.bad_rows import BadRows, bad_row_notes, check_bad_rows, merged
from torchrec_mm.data.logs.file_forms import FormedFile, form_files, found_delimiters
from torchrec_mm.data.logs.forms import Bad, Typist
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.logs.reading import OpenFile, open_file, pieces, read
from torchrec_mm.data.logs.times import LogTimes
from torchrec_mm.errors import InputError

WHICH = ("request_id", "item_id")
LABELS, EVENTS = (*WHICH, "label"), (*WHICH, "timestamp", "event")
KNOWN = (*LABELS, *EVENTS[2:])
KEPT = pa.schema({"request_id": STRING, "item_id": INT64, "label": INT64, "timestamp": INT64})


@dataclass(frozen=True)
class Outcomes:
    """Outcomes that were read.

    file: of rows of KEPT; events are label 1, and have a timestamp, labels have none.
    in_a_second: units of its timestamps. rows: of it. notes: a line on each thing found out.
    """

    folder: Path
    file: Path
    in_a_second: int
    rows: int
    notes: tuple[str, ...]


def read_outcomes(
    folder: Path, log_format: LogFormat, clicks: Collection[str], scratch: Path
) -> Outcomes:
    """Read a folder of Parquet, CSV or JSON lines: ``LABELS``, or ``EVENTS``.

    Args:
        folder, log_format: of the files. clicks: values of column event that are clicks; others
            are left out. scratch: folder that is there, for what is kept.

    Raises:
        InputError: what ``log_files`` refuses, a missing column or one of another type, more bad
            rows than may be, a label that is neither 0 nor 1.
    """
    log_format.check_names(KNOWN)
    wanted = [log_format.source(name) for name in WHICH]
    opened = [open_file(file, log_format.delimiter, wanted) for file in log_files(folder)]
    formed = form_files(opened, _columns(opened[0], log_format), log_format)
    reading = _Reading(folder, log_format, clicks)
    kept = scratch / "outcomes.parquet"
    with pq.ParquetWriter(kept, KEPT, compression="lz4") as writer:
        for file in formed:
            reading.read(file, writer)
    return reading.outcomes(kept, found_delimiters(formed, log_format))


def _columns(file: OpenFile, log_format: LogFormat) -> tuple[str, ...]:
    """LABELS or EVENTS, whichever a file has."""
    has = [file.has(log_format.source(name)) for name in ("label", "event")]
    if all(has):
        raise InputError(f"{file.path} must have a column label, or timestamp and event, got both")
    return LABELS if has[0] else EVENTS


@dataclass
class _Reading:
    """What has been read so far. rows: all, bad ones too. others: events of other kinds."""

    folder: Path
    log_format: LogFormat
    clicks: Collection[str]
    rows: int = 0
    kept: int = 0
    others: int = 0
    bad: list[BadRows] = field(default_factory=list)
    times: LogTimes = field(default_factory=LogTimes)

    def read(self, file: FormedFile, writer: pq.ParquetWriter) -> None:
        """One file of the log."""
        name = str(file.opened.path.relative_to(self.folder))
        with Typist(file.forms) as typist:
            for piece in pieces(file.opened):
                for raw, first in read(piece, file.places):
                    self.rows += raw.num_rows
                    numbers = pa.array(np.arange(first, first + raw.num_rows))
                    if "event" in file.forms:
                        raw, numbers = self._clicks(raw, numbers)
                    typed = typist(raw, file.opened.path, numbers)
                    self._complain(typed.bad, name)
                    writer.write_table(self._rows(typed.good, name))

    def _clicks(self, raw: pa.Table, numbers: pa.Array) -> tuple[pa.Table, pa.Array]:
        """Events that are clicks, or of no kind at all, which are bad rows."""
        kinds = raw["event"].combine_chunks().cast(STRING)
        counts = pc.or_(kinds.is_null(), pc.is_in(kinds, pa.array([*self.clicks], STRING)))
        self.others += raw.num_rows - pc.sum(counts).as_py()
        return raw.filter(counts), numbers.filter(counts)

    def _complain(self, found: Collection[Bad], name: str) -> None:
        for bad in found:
            value = None if bad.value is None else str(bad.value)
            self.bad.append(BadRows(bad.reason, bad.rows, f"{name} row {bad.first}", value))

    def _rows(self, good: pa.Table, name: str) -> pa.Table:
        count = good.num_rows
        self.kept += count
        if "event" in good.column_names:
            self.times += LogTimes.of(good)
            label, timestamp = pa.array(np.ones(count, np.int64)), good["timestamp"]
        else:
            label, timestamp = good["label"], pa.nulls(count, INT64)
            wrong = good.filter(pc.invert(pc.is_in(label, pa.array([0, 1]))))
            if wrong.num_rows:
                rule = f"{self.folder / name} column label must be 0 or 1"
                raise InputError(f"{rule}, got {wrong['label'][0].as_py()}")
        columns = [good["request_id"], good["item_id"], label, timestamp]
        return pa.Table.from_arrays(columns, schema=KEPT)

    def outcomes(self, file: Path, notes: list[str]) -> Outcomes:
        bad = merged(self.bad)
        check_bad_rows(self.folder, bad, self.rows, self.log_format.bad_share)
        notes += bad_row_notes(bad, self.rows)
        unit = "s"
        if self.times != LogTimes():
            unit = self.times.unit(self.folder, self.log_format)
            notes += self.times.notes(self.log_format, unit)
        if self.others:
            kinds = ", ".join(self.clicks)
            notes.append(f"{self.others} events are none of {kinds}, and left out")
        return Outcomes(self.folder, file, IN_A_SECOND[unit], self.kept, tuple(notes))
