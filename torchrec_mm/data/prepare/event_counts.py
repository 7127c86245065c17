"""What an event log holds, from one pass over it: enough to refuse it before the long work."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.data.logs.bad_rows import BadRows, bad_row_notes, check_bad_rows, merged
from torchrec_mm.data.logs.forms import Bad
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.logs.times import LogTimes
from torchrec_mm.data.prepare.events import EventRules
from torchrec_mm.errors import InputError

# What is known of a piece of a log, one row a fact: KIND (name: value of event, or null) rows;
# GOOD rows (name: of EventRules.groups); NUMBERS and DATES, their range; ZONELESS rows; BAD rows
# (name: why), where the first is and what it holds.
KIND, GOOD, NUMBERS, DATES, ZONELESS, BAD = "kind", "good", "numbers", "dates", "zoneless", "bad"
FACTS_SCHEMA = pa.schema(
    {"fact": STRING, "name": STRING, "rows": INT64, "least": INT64, "greatest": INT64}
    | {"where": STRING, "value": STRING}
)
MAX_KINDS = 100_000  # a column of more values than these says something else
NAMED = 10


def facts_of(
    kinds: pa.Array, good: pa.Table, bad: Iterable[Bad], file: str, groups: Sequence[str]
) -> pa.Table:
    """FACTS_SCHEMA of some rows.

    Args:
        kinds: values of the column event. good: typed events with kind, is_date and is_zoned.
        bad: what is wrong with the others. file: their file, as the user would look for it.
        groups: names of the kinds, by number.
    """
    facts: list[dict[str, object]] = []
    counted = kinds.value_counts()
    for kind, rows in islice(zip(*counted.flatten(), strict=True), MAX_KINDS + 1):
        facts.append({"fact": KIND, "name": kind.as_py(), "rows": rows.as_py()})
    of_kinds = np.bincount(good["kind"].to_numpy(), minlength=len(groups)).tolist()
    for name, rows in zip(groups, of_kinds, strict=True):
        facts.append({"fact": GOOD, "name": name, "rows": rows})
    times = LogTimes.of(good)
    facts.append({"fact": ZONELESS, "rows": times.zoneless})
    for fact, span in ((NUMBERS, times.numbers), (DATES, times.dates)):
        if span is not None:
            facts.append({"fact": fact, "least": span[0], "greatest": span[1]})
    for each in bad:
        value = None if each.value is None else str(each.value)
        where = f"{file} row {each.first}"
        more = {"rows": each.rows, "where": where, "value": value}
        facts.append({"fact": BAD, "name": each.reason} | more)
    return pa.Table.from_pylist(facts, FACTS_SCHEMA)


@dataclass(frozen=True)
class EventCounts:
    """What a pass over a log counted.

    rows: by kind of event, the most frequent first; None where there is none.
    shown, clicked, used: good rows, of impressions, of clicks and of all kinds. bad: the others, by
    why. times: of the good ones. rules: which events are of which kind.
    """

    rows: Mapping[str | None, int]
    shown: int
    clicked: int
    used: int
    bad: tuple[BadRows, ...]
    times: LogTimes
    rules: EventRules

    @classmethod
    def of(cls, facts: Iterable[pa.Table], rules: EventRules) -> "EventCounts":
        """``facts``: tables of FACTS_SCHEMA, in the order of the log."""
        kinds: Counter[str | None] = Counter()
        sums: Counter[str] = Counter()
        times = LogTimes()
        bad = []
        for fact in (row for table in facts for row in table.to_pylist()):
            what, name, rows = fact["fact"], fact["name"], fact["rows"]
            if what == KIND:
                if len(kinds) <= MAX_KINDS:
                    kinds[name] += rows
            elif what == BAD:
                bad.append(BadRows(name, rows, fact["where"], fact["value"]))
            elif what == NUMBERS:
                times += LogTimes(numbers=(fact["least"], fact["greatest"]))
            elif what == DATES:
                times += LogTimes(dates=(fact["least"], fact["greatest"]))
            elif what == ZONELESS:
                times += LogTimes(zoneless=rows)
            else:
                sums[name] += rows
        return cls(
            dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0] or ""))),
            sums["impression"],
            sums["click"],
            sum(sums.values()),
            tuple(merged(bad)),
            times,
            rules,
        )

    def check(self, folder: Path, log_format: LogFormat) -> None:
        """Refuse a log that cannot be used, by name: InputError."""
        if not self.rows:
            raise InputError(f"{folder} must hold at least one row, got 0")
        if len(self.rows) > MAX_KINDS:
            rule = f"{folder} column event must hold at most {MAX_KINDS} kinds of events, got more"
            raise InputError(f"{rule}: {', '.join(map(repr, islice(self.rows, NAMED)))}, ...")
        check_bad_rows(folder, self.bad, sum(self.rows.values()), log_format.bad_share)
        self._check_words(folder)

    def notes(self, log_format: LogFormat, unit: str) -> Iterator[str]:
        """A line on each thing worth knowing."""
        yield from self.times.notes(log_format, unit)
        yield from bad_row_notes(self.bad, sum(self.rows.values()))
        others = {kind: rows for kind, rows in self.rows.items() if kind not in self._others_than}
        if others:
            some = ", ".join(f"{rows} of {kind!r}" for kind, rows in islice(others.items(), NAMED))
            more = ", ..." if len(others) > NAMED else ""
            count = sum(others.values())
            yield f"{count} events of other kinds are left out: {some}{more}"

    @property
    def _others_than(self) -> set[str | None]:
        return {None, *self.rules.kinds}

    def _check_words(self, folder: Path) -> None:
        """All kinds occur, and no other kind that may be one of them."""
        kinds = [kind for kind in self.rows if kind is not None]
        meant = self.rules.groups
        words = {_word(kind): (kind, name) for name, each in meant.items() for kind in each}
        for kind in kinds:
            if kind not in self._others_than and _word(kind) in words:
                like, name = words[_word(kind)]
                raise InputError(
                    f"{folder} column event must not hold {kind!r}, which is {like!r} (events: "
                    f"{name}) but for spaces or case, got {self.rows[kind]} rows of it"
                )
        for name, each in meant.items():
            if not set(each) & set(kinds):
                rule = f"{folder} column event must hold {' or '.join(map(repr, each))} "
                rule += f"(events: {name}) at least once"
                raise InputError(f"{rule}, got {', '.join(kinds[:NAMED])}")


def _word(kind: str) -> str:
    """Without case, and without spaces and unprintable characters around it."""
    return "".join(filter(str.isprintable, kind)).strip().casefold()
