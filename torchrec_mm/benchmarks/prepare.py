"""Event logs to requests: how fast, in how much memory, and equal to a plain-Python reading.

Ours is ``python -m apps.prepare --source events`` with its defaults, start to end, in a process of
its own. The baseline is the least that any way must do: DuckDB, in the same memory, sorts the same
log by user and hands over the rows, which are dropped.
"""

import glob
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.prepare_log import draw_log, slow_requests
from torchrec_mm.commands import module_of
from torchrec_mm.config import check_fields
from torchrec_mm.data.prepare.events import REQUEST_SCHEMA, SORTED_BY, EventRules
from torchrec_mm.data.prepare.events_duckdb import BATCH_ROWS, DUCKDB_SHARE

RULES = EventRules(
    shown=("impression",),
    clicked=("click",),
    attribution_s=1800,
    pause_s=0,
    max_candidates=20,
    behaviours=50,
    test_share=0.2,
)  # the defaults of apps.prepare
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(BenchmarkConfig):
    """Events a second of apps.prepare on a simulated log, against sorting it and nothing more.

    Also the most memory that apps.prepare took, and whether the requests of some users are those
    of a plain-Python reading of their events; where they are not, the benchmark fails.
    """

    events: int = 1_000_000
    """Rows of the log; a million takes about 50 MB of disk on the way."""
    memory_gb: float = 4.0
    """As in apps.prepare, on both sides."""
    sample_users: int = 200
    """Users whose requests are compared."""
    work_dir: Path | None = None
    """Folder for a folder of log, spilled rows and requests, removed at the end; null: the
    system's own for temporary files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1000, "at least 1000", "events")
        check_fields(self, lambda x: x >= 1, "at least 1", "memory_gb", "sample_users")


def compare(config: PrepareConfig) -> Iterator[dict[str, Any]]:
    """One comparison."""
    with TemporaryDirectory(dir=config.work_dir) as folder:
        root = Path(folder)
        draw_log(root / "log", config.events)
        sides = {
            "ours": lambda: run_prepare(root, config.memory_gb),
            "sort": lambda: (in_fresh_process(sort_alone, root, config.memory_gb), 0.0),
        }
        results = alternate(sides, config.runs)
        compared = check_sample(root, config.sample_users)
    yield comparison(
        "prepare",
        "events/s",
        [config.events / seconds for seconds, _ in results["ours"]],
        [config.events / seconds for seconds, _ in results["sort"]],
        more_is_better=True,
        against="sort alone",
        events=config.events,
        memory_gb=config.memory_gb,
        peak_gb=max(peak for _, peak in results["ours"]),
        equal_users=compared,
    )


def run_prepare(root: Path, memory_gb: float) -> tuple[float, float]:
    """Seconds, and GB resident at most, of apps.prepare from ``root/log``."""
    run_dir = _empty(root / "data")
    flags = ["--source=events", f"--input={root / 'log'}", f"--run_dir={run_dir}"]
    command = [sys.executable, "-m", module_of("prepare"), *flags, f"--memory_gb={memory_gb}"]
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    peak_gb = 0.0
    while process.poll() is None:
        peak_gb = max(peak_gb, resident_gb(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, peak_gb


def resident_gb(pid: int) -> float:
    """GB resident at most so far; 0 once the process has ended.

    Not ``ru_maxrss``: that counts what the parent had in memory when it forked.
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    return 0.0


def sort_alone(root: Path, memory_gb: float) -> float:
    """Seconds in which the same rows come in the same order, and are dropped."""
    begin = time.perf_counter()
    config: dict[str, Any] = {
        "memory_limit": f"{memory_gb * DUCKDB_SHARE}GB",
        "temp_directory": str(root / "spill"),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as database:
        log = _rows(database, root / "log").filter("event IN ('impression', 'click')")
        events = log.select("user_id, timestamp, item_id, (event = 'click')::TINYINT AS kind")
        for _ in events.order(", ".join(SORTED_BY)).to_arrow_reader(BATCH_ROWS):
            pass
    return time.perf_counter() - begin


def check_sample(root: Path, users: int) -> int:
    """Compare the requests of some users with the oracle's; how many users they were.

    The user with the most events is one of them, the others are drawn evenly.

    Raises:
        RuntimeError: a user's requests differ.
    """
    with duckdb.connect(config={"memory_limit": "1GB"}) as database:
        log = _rows(database, root / "log")
        counts = log.aggregate("user_id, count(*) AS events, hash(user_id) AS place")
        longest = counts.order("events DESC, user_id").limit(1)
        some = counts.order("place, user_id").limit(users)
        chosen = {user for (user, *_) in longest.fetchall() + some.fetchall()}
        events = _of_users(log, chosen).select("user_id, timestamp, item_id, event").fetchall()
        requests = []
        for split in ("train", "test"):
            rows = _rows(database, root / "data" / "requests" / split)
            columns = ", ".join(REQUEST_SCHEMA.names[:-1])  # is_test is told by the folder
            table = _of_users(rows, chosen).select(columns).to_arrow_table()
            requests += [{**row, "is_test": split == "test"} for row in table.to_pylist()]
    by_user: dict[int, list[Any]] = {user: [] for user in chosen}
    for user, *event in events:
        by_user[user].append(tuple(event))
    for user, of_user in by_user.items():
        ours = [request for request in requests if request["user_id"] == user]
        if _sorted(ours) != _sorted(slow_requests(user, of_user, RULES)):
            raise RuntimeError(f"the requests of user {user} are not those of the oracle")
    return len(chosen)


def _rows(database: duckdb.DuckDBPyConnection, folder: Path) -> duckdb.DuckDBPyRelation:
    return database.read_parquet(f"{glob.escape(str(folder))}/*.parquet", hive_partitioning=False)


def _of_users(rows: duckdb.DuckDBPyRelation, users: set[int]) -> duckdb.DuckDBPyRelation:
    return rows.filter(f"user_id IN ({', '.join(map(str, users))})")


def _sorted(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(requests, key=lambda request: list(request.values()))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
