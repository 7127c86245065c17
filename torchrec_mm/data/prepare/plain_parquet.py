"""Parquet logs that hold numbers and are without fault: DuckDB reads them where they lie.

The most common logs, and the largest: a copy of their rows would take a quarter of the time of all.
"""

import glob
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa

from torchrec_mm.columns.files import PARQUET, WORDS
from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.data.logs.file_forms import FormedFile
from torchrec_mm.data.logs.forms import STRING_FORM, WHOLE
from torchrec_mm.data.prepare.event_counts import FACTS_SCHEMA, GOOD, KIND, MAX_KINDS, NUMBERS
from torchrec_mm.data.prepare.event_log import COLUMNS, EventLog
from torchrec_mm.data.prepare.events import EventRules

NUMBER_COLUMNS = ("user_id", "item_id", "timestamp")
PLAIN = dict.fromkeys(NUMBER_COLUMNS, WHOLE) | {"event": STRING_FORM}
# What is counted of a kind: rows, those with a number in a column, and the range of their times.
COUNTED_SCHEMA = pa.schema(
    {"event": STRING} | dict.fromkeys(("rows", *NUMBER_COLUMNS, "least", "greatest"), INT64)
)
# Columns come from the files alone: DuckDB would take those of folders called user_id=3 as well.
_AS_IT_IS = "hive_partitioning = false, union_by_name = false, filename = false"


def is_plain(log: EventLog) -> bool:
    """Whether every file is Parquet, its ids and times int64 and none of them a partition."""
    return all(
        file.opened.kind == WORDS[PARQUET]
        and file.forms == PLAIN
        and not any(map(file.opened.is_partition, file.places.values()))
        for file in log.files
    )


def all_rows(log: EventLog) -> str:
    """SQL: COLUMNS of all events; null where a number does not fit."""
    alike = defaultdict(list)
    for file in log.files:
        alike[tuple(file.opened.columns[file.places[name]] for name in COLUMNS)].append(file)
    return f"({' UNION ALL '.join(map(_select, alike.values()))})"


def events_of_use(log: EventLog) -> str:
    """SQL: impressions, clicks and further events, as ``EventLog.schema`` has them."""
    groups = enumerate(log.rules.groups.values())
    cases = " ".join(f"WHEN event IN {_list(events)} THEN {number}" for number, events in groups)
    columns = f"{', '.join(NUMBER_COLUMNS)}, CAST(CASE {cases} END AS TINYINT) AS kind"
    return f"(SELECT {columns} FROM {all_rows(log)} WHERE event IN {_list(log.rules.kinds)})"


def count_query(log: EventLog) -> str:
    """SQL: rows of COUNTED_SCHEMA, one for each kind of event."""
    known = ", ".join(f"count({name}) AS {name}" for name in NUMBER_COLUMNS)
    return (
        f"SELECT event, count(*) AS rows, {known}, min(timestamp) AS least, "
        f"max(timestamp) AS greatest FROM {all_rows(log)} GROUP BY event LIMIT {MAX_KINDS + 1}"
    )


def facts_of_kinds(counted: pa.Table, rules: EventRules) -> pa.Table | None:
    """FACTS_SCHEMA of a log; None if a row is bad, as nobody has said which.

    ``counted``: rows of COUNTED_SCHEMA.
    """
    facts: list[dict[str, object]] = []
    for kind in counted.to_pylist():
        event, rows = kind["event"], kind["rows"]
        facts.append({"fact": KIND, "name": event, "rows": rows})
        if event in rules.kinds:
            name = [*rules.groups][rules.kinds[event]]
            facts.append({"fact": GOOD, "name": name, "rows": rows})
            times = {"least": kind["least"], "greatest": kind["greatest"]}
            facts.append({"fact": NUMBERS} | times)
            if any(kind[name] < rows for name in NUMBER_COLUMNS):
                return None
        elif event is None:
            return None
    return pa.Table.from_pylist(facts, FACTS_SCHEMA)


def _select(files: list[FormedFile]) -> str:
    """Files whose columns have the same names and types."""
    opened, places = files[0].opened, files[0].places
    names = {name: quoted(opened.names[places[name]], '"') for name in COLUMNS}
    casts = [f"TRY_CAST({names[name]} AS BIGINT) AS {name}" for name in NUMBER_COLUMNS]
    # To DuckDB ``[`` and ``*`` in a path would be wildcards.
    paths = ", ".join(quoted(glob.escape(str(file.opened.path)), "'") for file in files)
    columns = ", ".join([*casts, f"CAST({names['event']} AS VARCHAR) AS event"])
    return f"SELECT {columns} FROM read_parquet([{paths}], {_AS_IT_IS})"


def _list(texts: Iterable[str]) -> str:
    return f"({', '.join(quoted(text, chr(39)) for text in texts)})"


def quoted(text: str, quote: str) -> str:
    """SQL: a text, in single quotes, or a name, in double ones."""
    return f"{quote}{text.replace(quote, quote * 2)}{quote}"
