"""What an event log holds, from one pass over it: enough to refuse it before the long work."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.prepare.event_log import COLUMNS, NUMBERS
from torchrec_mm.data.prepare.events import EventRules
from torchrec_mm.errors import InputError

# What engines count, one row for each value of the column event, null among them: rows in all,
# those that hold a number of the promised type in a column, and the range of their times.
COUNTED = ("events", *NUMBERS, "first", "last")
KINDS_SCHEMA = pa.schema({"event": STRING} | dict.fromkeys(COUNTED, INT64))
MAX_KINDS = 100_000  # a column of more values than these says something else
NAMED = 10


@dataclass(frozen=True)
class EventCounts:
    """What an engine counted.

    rows: by kind of event, the most frequent first; None where there is none.
    known: by column, rows that hold a value of its type.
    first, last: of all times; None where there is none.
    rules: which events are impressions and clicks.
    """

    rows: Mapping[str | None, int]
    known: Mapping[str, int]
    first: int | None
    last: int | None
    rules: EventRules

    @classmethod
    def of(cls, kinds: pa.Table, rules: EventRules) -> "EventCounts":
        """``kinds``: rows of KINDS_SCHEMA; engines need not give more than MAX_KINDS and one."""
        kinds = kinds.sort_by([("events", "descending"), ("event", "ascending")])
        rows = dict(zip(kinds["event"].to_pylist(), kinds["events"].to_pylist(), strict=True))
        known = {name: pc.sum(kinds[name]).as_py() or 0 for name in NUMBERS}
        known["event"] = sum(rows.values()) - rows.get(None, 0)
        first, last = pc.min(kinds["first"]).as_py(), pc.max(kinds["last"]).as_py()
        return cls(rows, known, first, last, rules)

    @property
    def shown(self) -> int:
        """Impressions."""
        return self.rows.get(self.rules.shown_event, 0)

    @property
    def clicked(self) -> int:
        """Clicks."""
        return self.rows.get(self.rules.clicked_event, 0)

    def check(self, folder: Path) -> None:
        """Refuse a log that cannot be used, by name: InputError."""
        events = sum(self.rows.values())
        if events == 0:
            raise InputError(f"{folder} must hold at least one row, got 0")
        if len(self.rows) > MAX_KINDS:
            rule = f"{folder} column event must hold at most {MAX_KINDS} kinds of events, got more"
            raise InputError(f"{rule}: {', '.join(map(repr, islice(self.rows, NAMED)))}, ...")
        for name, count in self.known.items():
            if count < events:
                rule = f"{folder} column {name} must hold {COLUMNS[name]} in every row"
                raise InputError(f"{rule}, got {events - count} rows without")
        check_seconds(folder, "timestamp", pa.array([self.first, self.last], INT64))
        self._check_words(folder)

    def left_out(self) -> str:
        """Other kinds of events in one line; empty if there is none."""
        others = {kind: rows for kind, rows in self.rows.items() if kind not in self._meant}
        if not others:
            return ""
        some = ", ".join(f"{rows} of {kind!r}" for kind, rows in islice(others.items(), NAMED))
        more = ", ..." if len(others) > NAMED else ""
        return f"{sum(others.values())} events of other kinds are left out: {some}{more}"

    @property
    def _meant(self) -> dict[str, str]:
        return {self.rules.shown_event: "shown_event", self.rules.clicked_event: "clicked_event"}

    def _check_words(self, folder: Path) -> None:
        """Both kinds occur, and no other kind that may be one of them."""
        kinds = [kind for kind in self.rows if kind is not None]  # ``check`` refused null
        words = {_word(kind): (kind, field) for kind, field in self._meant.items()}
        for kind in kinds:
            if kind not in self._meant and _word(kind) in words:
                meant, field = words[_word(kind)]
                raise InputError(
                    f"{folder} column event must not hold {kind!r}, which is {field} {meant!r} but "
                    f"for spaces or case, got {self.rows[kind]} rows of it"
                )
        for kind in self._meant:
            if kind not in self.rows:
                rule = f"{folder} column event must hold {kind!r} at least once"
                raise InputError(f"{rule}, got {', '.join(kinds[:NAMED])}")


def _word(kind: str) -> str:
    """Without case, and without spaces and unprintable characters around it."""
    return "".join(filter(str.isprintable, kind)).strip().casefold()
