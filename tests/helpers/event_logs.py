"""Small event logs, and what engines make of them."""

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from torchrec_mm.benchmarks.prepare_log import slow_requests
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.prepare.event_log import EventLog, open_log
from torchrec_mm.data.prepare.events import EVENT_SCHEMA, SORTED_BY, EventRules, requests_of
from torchrec_mm.data.prepare.events_duckdb import DuckdbEngine
from torchrec_mm.data.prepare.prepared_events import Engine, write_prepared_events
from torchrec_mm.files import scratch_folder

RULES = EventRules(
    shown=("view",),
    clicked=("click",),
    attribution_s=5,
    pause_s=0,
    max_candidates=20,
    behaviours=3,
    test_share=0.3,
)
NAMES = ("user_id", "item_id", "timestamp", "event")

EVENTS = st.tuples(
    *(st.integers(1, 3), st.integers(-1, 1), st.integers(0, 15)),
    st.sampled_from(["view", "click", "add", "buy"]),
)


def write_log(folder: Path, *files: list[tuple]) -> Path:
    """One Parquet file for each list of (user_id, item_id, timestamp, event).

    Files take turns in the order of their columns.
    """
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(files):
        columns = map(list, zip(*rows, strict=True))
        table = pa.table(dict(zip(NAMES, columns, strict=True)))
        table = table.select(NAMES[:: -1 if number % 2 else 1])
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


def wildcards(log: Path) -> Path:
    """Rename two files so that the name of one, as a pattern, is that of the other."""
    (log / "0.parquet").rename(log / "b.parquet")
    (log / "1.parquet").rename(log / "[b].parquet")
    return log


def write_csv(path: Path, rows: list[tuple], header: str = ",".join(NAMES)) -> Path:
    """A CSV file in a new folder, which is returned."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows), ""]))
    return path.parent


def opened(log: Path, rules: EventRules = RULES, **log_format) -> EventLog:
    return open_log(log, LogFormat(**log_format), rules)


def duckdb_engine(
    log: Path, rules: EventRules = RULES, memory_gb: float = 1, **log_format
) -> DuckdbEngine:
    return DuckdbEngine(opened(log, rules, **log_format), log.parent / "scratch", memory_gb)


def prepare(engine: Engine, run_dir: Path, items: Path | None = None) -> Path:
    """As apps.prepare does."""
    with closing(engine), scratch_folder(run_dir) as scratch:
        write_prepared_events(engine, run_dir, items, scratch)
    return run_dir


def requests_in(run_dir: Path) -> list[dict]:
    """Rows of both splits with ``is_test``, by user, time and content."""
    rows = []
    for split in ("train", "test"):
        table = pq.read_table(run_dir / "requests" / split, partitioning=None)
        rows += [{**row, "is_test": split == "test"} for row in table.to_pylist()]
    return by_user(rows)


def by_user(requests: list[dict]) -> list[dict]:
    """One order for requests that came in another."""
    return sorted(requests, key=lambda row: list(row.values()))


def requests_of_rows(rows: list[tuple], rules: EventRules = RULES) -> list[dict]:
    """The oracle's requests of a whole log, in the order of ``by_user``."""
    users = {row[0]: [] for row in rows}
    for user, item, time, event in rows:
        users[user].append((time, item, event))
    return by_user(
        [
            request
            for user, events in users.items()
            for request in slow_requests(user, events, rules)
        ]
    )


def table_of(rows: list[tuple], rules: EventRules = RULES) -> pa.Table:
    """Rows as an engine hands them over."""
    events = sorted(
        (user, time, item, rules.kinds[event])
        for user, item, time, event in rows
        if event in rules.kinds
    )
    columns = zip(*events, strict=True) if events else [[]] * len(SORTED_BY)
    return pa.table(dict(zip(SORTED_BY, map(list, columns), strict=True)), EVENT_SCHEMA)


def requests_of_events(rows: list[tuple], rules: EventRules = RULES) -> list[dict]:
    return [row for table in requests_of(table_of(rows, rules), rules) for row in table.to_pylist()]
