"""Turn ratings, impressions or event logs of any size into requests.

python -m apps.prepare --source movielens --input DIR --run_dir DATA
python -m apps.prepare --source mind --input DIR --run_dir DATA
python -m apps.prepare --source events --input LOGS --run_dir DATA --memory_gb 8
python -m apps.prepare --source events --input LOGS --run_dir DATA --engine spark
python -m apps.prepare --source events --input LOGS --run_dir DATA \
    --columns '{user_id: uid}' --events '{impression: [view], click: [tap, open]}'
python -m apps.prepare --source request_log --input LOG --outcomes CLICKS --run_dir DATA
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from torchrec_mm.config import parse, run
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.prepare.event_log import open_log
from torchrec_mm.data.prepare.events import EventRules
from torchrec_mm.data.prepare.impressions import prepare_impressions
from torchrec_mm.data.prepare.movielens import MovieLensRules, prepare_movielens
from torchrec_mm.data.prepare.prepared import Prepared, write_prepared
from torchrec_mm.data.prepare.prepared_events import Engine, write_prepared_events
from torchrec_mm.data.public.amazon import read_amazon
from torchrec_mm.data.public.criteo import read_criteo
from torchrec_mm.data.public.kuairand import read_kuairand
from torchrec_mm.data.public.microlens import read_microlens
from torchrec_mm.data.public.mind import read_mind
from torchrec_mm.data.public.public_data import PublicData, write_public
from torchrec_mm.data.public.tables import Tables
from torchrec_mm.data.public.users import FeedRules
from torchrec_mm.data.served.prepare import prepare_request_log
from torchrec_mm.errors import InputError
from torchrec_mm.files import scratch_folder
from torchrec_mm.targets import check_new_folder, check_working_folder


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Write items/, requests/train, requests/test; searches/ from movielens, ids/ of ids of text.

    Also features.yaml: the one beside the items/ given, or one that says nothing yet.
    A flag that its source does not know is refused.
    """

    source: Literal[
        "movielens",
        "impressions",
        "events",
        "mind",
        "microlens",
        "amazon",
        "kuairand",
        "criteo",
        "request_log",
    ]
    """movielens: ratings.csv, movies.csv, tags.csv, posters/<movieId>.jpg; impressions: user_id,
    item_id, label, timestamp and/or behaviour_item_ids, weight?, features; events: user_id,
    item_id, timestamp, event; both in Parquet, CSV or JSON lines, partitioned or not. request_log:
    what apps.serve --log wrote, see torchrec_mm/serving/request_log. The others are public data
    sets as they are published, see torchrec_mm/data/public"""
    input: Path
    """folder of the files"""
    run_dir: Path
    """folder to create"""
    test_share: float | None = None
    """all but mind, which is split: latest share of each user's impressions, of request_log of all
    requests, for testing (0.2)"""
    behaviours: int | None = None
    """all but criteo and request_log: behaviours of a request at most, the latest (50)"""
    items: Path | None = None
    """impressions, events, request_log: folder with items/ (and features.yaml) to copy; not given:
    items/ holds ids alone"""
    max_candidates: int | None = None
    """movielens, events, amazon, kuairand: candidates of a request at most (20); more make several
    requests"""
    pause_s: int | None = None
    """movielens, events, amazon, kuairand: a longer pause, in seconds, ends a request (0 of events,
    of others 1800)"""
    like_from: float | None = None
    """movielens, amazon: least rating that is a like (4.0)"""
    negatives: int | None = None
    """microlens: items drawn beside each that a user chose (4)"""
    seed: int | None = None
    """microlens: of what is drawn (0)"""
    events: dict[str, list[str]] | None = None
    """events: values of column event that are impressions and clicks, as in '{impression: [view],
    click: [tap, open]}' ({impression: [impression], click: [click]}); those of any further name,
    cart: [add], become a behaviour sequence cart_item_ids; others are left out. request_log: of
    outcomes, click alone"""
    columns: dict[str, str] | None = None
    """impressions, events, outcomes of request_log: what the files call columns, as in '{user_id:
    uid, item_id: iid}'; of impressions also '{candidate_city: city}', a feature of theirs"""
    timestamp_unit: Literal["s", "ms", "us", "ns"] | None = None
    """the same: of times that are whole numbers; not given: told by their size, and
    said. Dates need none"""
    delimiter: str | None = None
    """the same: of CSV files, one character; not given: comma, semicolon, tab or |,
    whichever gives all columns"""
    text_ids: tuple[str, ...] | None = None
    """the same: user_id and/or item_id of CSV files that are text though some look like
    numbers, as in '[user_id]'; not given: they are where none of the first looks so"""
    bad_share: float | None = None
    """the same: share of the rows that may be bad, which are left out and counted (0)"""
    passed: bool | None = None
    """movielens, impressions, events: requests also hold passed_item_ids, what their user was shown
    earlier and did not click (of films: rated and did not like), behaviours at most (movielens:
    true, else false)"""
    attribution_s: int | None = None
    """events: a click counts for an impression at most so many seconds earlier (1800)"""
    engine: Literal["duckdb", "spark"] | None = None
    """events: duckdb, on this machine; spark, on the cluster of Spark's own configuration, local
    where it names none. Both give the same requests; Spark in any order of users (duckdb)"""
    outcomes: Path | None = None
    """request_log: folder of what came of the requests, in Parquet, CSV or JSON lines: request_id,
    item_id and label, or timestamp and event"""
    wait_s: int | None = None
    """request_log: seconds that an outcome may take to come; later ones are none, and files of the
    log with a younger request are left for another run (1800)"""
    add: bool | None = None
    """request_log: write one file of requests more into run_dir, of what is not in it yet, as
    apps.train_ranker --follow reads them; no items/, no test_share (false)"""
    memory_gb: float | None = None
    """events with engine duckdb, microlens, amazon, kuairand, request_log: memory of this process
    at most; what needs more goes to disk beside run_dir, where events of use are kept meanwhile.
    At least 1 (4)"""

    def __post_init__(self) -> None:
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise InputError(f"test_share must be between 0 and 1, got {self.test_share}")
        for name, least in (
            ("behaviours", 1),
            ("max_candidates", 1),
            ("pause_s", 0),
            ("attribution_s", 0),
            ("wait_s", 0),
            ("negatives", 1),
            ("seed", 0),
            ("memory_gb", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        for field in fields(self):
            known = SETTINGS[self.source].keys() | (FORMAT if self.source in LOGS else ())
            if field.default is None and field.name not in known:
                if getattr(self, field.name) is not None:
                    raise InputError(f"{field.name} does not apply to source {self.source}")
        if self.source == "request_log":
            self._check_request_log()
        if self.engine == "spark" and self.memory_gb is not None:
            raise InputError("memory_gb does not apply to engine spark: set spark.driver.memory")

    def _check_request_log(self) -> None:
        if self.outcomes is None:
            raise InputError("outcomes must be given with source request_log")
        if unknown := (self.events or {}).keys() - {"click"}:
            raise InputError(f"events must name click alone with request_log, got {min(unknown)}")
        if self.add and (self.items or self.test_share) is not None:
            raise InputError("items and test_share do not apply with add")

    def log_format(self) -> LogFormat:
        """What the flags say of the files."""
        given = {name: getattr(self, name) for name in FORMAT}
        return LogFormat(**{name: value for name, value in given.items() if value is not None})

    def settings(self) -> dict[str, Any]:
        """The flags that apply to the source, defaults filled in."""
        defaults = SETTINGS[self.source]
        given = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if value is None else value for name, value in given.items()}


LOGS = ("impressions", "events", "request_log")
FORMAT = ("columns", "timestamp_unit", "delimiter", "text_ids", "bad_share")
SPLIT = {"test_share": 0.2, "behaviours": 50}
SITTINGS = SPLIT | {"max_candidates": 20, "pause_s": 1800}
SETTINGS: dict[str, dict[str, Any]] = {
    "movielens": SITTINGS | {"like_from": 4.0, "passed": True},
    "impressions": SPLIT | {"items": None, "passed": False},
    "events": SITTINGS
    | {
        "items": None,
        "pause_s": 0,
        "events": {},
        "passed": False,
        "attribution_s": 1800,
        "engine": "duckdb",
        "memory_gb": 4.0,
    },
    "mind": {"behaviours": 50},
    "microlens": SPLIT | {"negatives": 4, "seed": 0, "memory_gb": 4.0},
    "amazon": SITTINGS | {"like_from": 4.0, "memory_gb": 4.0},
    "kuairand": SITTINGS | {"memory_gb": 4.0},
    "criteo": {"test_share": 0.2},
    "request_log": {"outcomes": None, "items": None, "test_share": 0.2, "events": {}}
    | {"wait_s": 1800, "add": False, "memory_gb": 4.0},
}
PUBLIC = ("mind", "microlens", "amazon", "kuairand", "criteo")


def main(argv: Sequence[str] | None = None) -> None:
    """Read everything, check it, then write; a log of events passes through instead."""
    config = _with_whole_paths(parse(PrepareConfig, argv))
    reads = (config.input, config.outcomes, config.items and config.items / "items")
    check_folder = check_working_folder if config.add else check_new_folder
    check_folder(config.run_dir, "run_dir", reads)
    with scratch_folder(config.run_dir) as scratch:
        if config.source == "events":
            notes = _prepare_events(config, scratch)
        elif config.source in PUBLIC:
            notes = write_public(config.run_dir, _public_data(config, scratch), scratch)
        elif config.source == "request_log":
            given = (config.input, config.run_dir, config.log_format(), scratch)
            notes = prepare_request_log(*given, **config.settings())
        else:
            notes = write_prepared(config.run_dir, _prepare(config, scratch))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _with_whole_paths(config: PrepareConfig) -> PrepareConfig:
    """Relative ones that begin with ``~`` or ``file:`` would lead Arrow and DuckDB elsewhere."""
    given = {name: getattr(config, name) for name in ("input", "run_dir", "items", "outcomes")}
    return replace(config, **{name: path and path.absolute() for name, path in given.items()})


def _prepare(config: PrepareConfig, scratch: Path) -> Prepared:
    settings = config.settings()
    if config.source == "movielens":
        return prepare_movielens(config.input, MovieLensRules(**settings))
    settings |= {"log_format": config.log_format(), "scratch": scratch / "items"}
    return prepare_impressions(config.input, **settings)


def _public_data(config: PrepareConfig, scratch: Path) -> PublicData:
    settings = config.settings()
    if config.source == "mind":
        return read_mind(config.input, **settings)
    if config.source == "criteo":
        return read_criteo(config.input, **settings)
    tables = Tables(config.input, scratch, settings.pop("memory_gb"))
    if config.source == "microlens":
        return read_microlens(config.input, tables, **settings)
    if config.source == "amazon":
        like_from = settings.pop("like_from")
        return read_amazon(config.input, tables, FeedRules(**settings), like_from=like_from)
    return read_kuairand(config.input, tables, FeedRules(**settings))


def _prepare_events(config: PrepareConfig, scratch: Path) -> list[str]:
    settings = config.settings()
    items, engine, memory_gb = (settings.pop(name) for name in ("items", "engine", "memory_gb"))
    rules = EventRules(**(settings | _kinds_of_events(settings.pop("events"))))
    log = open_log(config.input, config.log_format(), rules)
    if engine == "duckdb":
        from torchrec_mm.data.prepare.events_duckdb import DuckdbEngine

        opened: Engine = DuckdbEngine(log, scratch / "log", memory_gb)
    else:
        from torchrec_mm.data.prepare.events_spark import SparkEngine

        opened = SparkEngine(log)
    with closing(opened):
        return write_prepared_events(opened, config.run_dir, items, scratch)


def _kinds_of_events(given: dict[str, list[str]]) -> dict[str, Any]:
    """Arguments of ``EventRules``."""
    kinds = {name: tuple(given.get(name, [name])) for name in ("impression", "click")}
    further = {name: tuple(each) for name, each in given.items() if name not in kinds}
    return {"shown": kinds["impression"], "clicked": kinds["click"], "further": further}


if __name__ == "__main__":
    sys.exit(run(main))
