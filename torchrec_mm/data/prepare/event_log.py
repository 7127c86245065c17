"""An event log: its files, how each is read, and its rows as the data contract has them.

Every engine reads a log through ``typed_events``, a piece at a time, wherever that runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.log_files import log_files
from torchrec_mm.columns.parquet import INT8, INT64, STRING
from torchrec_mm.data.logs.file_forms import FormedFile, form_files, text_ids
from torchrec_mm.data.logs.forms import CODE, Typist
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.logs.reading import Piece, open_file, pieces, read
from torchrec_mm.data.prepare.event_counts import facts_of
from torchrec_mm.data.prepare.events import EventRules

COLUMNS = ("user_id", "item_id", "timestamp", "event")


@dataclass(frozen=True)
class EventLog:
    """A folder of logs whose headers have been read.

    text_ids: which ids are text. rules: which events count.
    """

    folder: Path
    files: tuple[FormedFile, ...]
    log_format: LogFormat
    rules: EventRules

    @property
    def text_ids(self) -> list[str]:
        return text_ids(self.files[0])

    @property
    def schema(self) -> pa.Schema:
        """Of events; of the text of ids, if they are text."""
        columns = dict.fromkeys(("user_id", "timestamp", "item_id"), INT64) | {"kind": INT8}
        return pa.schema(columns | {f"{name}_text": STRING for name in self.text_ids})

    def pieces(self) -> list[tuple[FormedFile, Piece]]:
        """In the order of the log."""
        return [(file, piece) for file in self.files for piece in pieces(file.opened)]


def open_log(folder: Path, log_format: LogFormat, rules: EventRules) -> EventLog:
    """The files of a folder of logs; only headers, schemas and first rows are looked at.

    Raises:
        InputError: what ``log_files`` refuses, an unreadable file, a missing column, two that
            differ by case or spaces alone or a wrong type.
    """
    log_format.check_names(COLUMNS)
    sources = [log_format.source(name) for name in COLUMNS]
    opened = [open_file(file, log_format.delimiter, sources) for file in log_files(folder)]
    return EventLog(folder, tuple(form_files(opened, COLUMNS, log_format)), log_format, rules)


def typed_events(
    log: EventLog, file: FormedFile, piece: Piece
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Impressions, clicks and further events of a piece, and what is known of it.

    Rows of other kinds of events are left out, whatever else they hold.

    Yields:
        Rows of ``EventLog.schema``, times in their own unit; rows of FACTS_SCHEMA.

    Raises:
        InputError: an unreadable file.
    """
    name = str(file.opened.path.relative_to(log.folder))
    wanted, numbers = pa.array([*log.rules.kinds]), pa.array(log.rules.kinds.values(), INT8)
    with Typist(file.forms | {"event": CODE}) as typist:  # the number of its kind
        for raw, first in read(piece, file.places):
            kinds = raw["event"].combine_chunks().cast(STRING)  # of nulls alone, it may not be
            counts = pc.or_(kinds.is_null(), pc.is_in(kinds, wanted))
            kind = numbers.take(pc.index_in(kinds, wanted))
            raw = raw.set_column(raw.column_names.index("event"), "event", kind)
            rows = pa.array(np.arange(first, first + raw.num_rows)).filter(counts)
            typed = typist(raw.filter(counts), file.opened.path, rows)
            good = typed.good.rename_columns({"event": "kind"})
            facts = facts_of(kinds, good, typed.bad, name, [*log.rules.groups])
            yield good.select(log.schema.names), facts
