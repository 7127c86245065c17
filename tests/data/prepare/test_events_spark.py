"""Event logs through Spark, on this machine: the same requests as through DuckDB."""

import gzip
import os
import random
import sys
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.prepare import main
from tests.helpers.event_logs import (
    duckdb_engine,
    opened,
    prepare,
    requests_in,
    requests_of_rows,
    wildcards,
    write_csv,
    write_log,
)
from torchrec_mm.benchmarks.prepare_log import draw_log
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.prepare.prepared_events import write_prepared_events
from torchrec_mm.errors import InputError
from torchrec_mm.files import scratch_folder

KINDS = ("view", "click", "basket")

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore:PySpark does not yet fully")]


@pytest.fixture(scope="module", autouse=True)
def spark(tmp_path_factory):
    """One JVM for all tests here."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "3",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = SparkSession.builder.config(map=settings).getOrCreate()
        yield session
        session.stop()


def spark_engine(log, **log_format):
    from torchrec_mm.data.prepare.events_spark import SparkEngine

    return SparkEngine(opened(log, **log_format))


def test_spark_and_duckdb_make_the_same_requests_of_a_million_events(tmp_path):
    draw_log(tmp_path / "log", 1_000_000)
    for engine in ("duckdb", "spark"):
        flags = [f"--input={tmp_path / 'log'}", f"--run_dir={tmp_path / engine}"]
        main(["--source=events", f"--engine={engine}", *flags])
    requests = requests_in(tmp_path / "spark")
    shown = pq.read_table(tmp_path / "log", filters=[("event", "==", "impression")])
    assert shown.num_rows == 800_000
    different = shown.group_by(["user_id", "item_id", "timestamp"]).aggregate([]).num_rows
    assert sum(len(request["labels"]) for request in requests) == different < 800_000
    assert requests == requests_in(tmp_path / "duckdb")
    ids = [read_items(tmp_path / engine).item_ids for engine in ("spark", "duckdb")]
    assert (ids[0] == ids[1]).all()
    part = pq.ParquetFile(next((tmp_path / "spark" / "requests" / "train").iterdir())).metadata
    assert max(part.row_group(at).num_rows for at in range(part.num_row_groups)) <= 10_000


def test_both_engines_make_the_same_further_sequences(tmp_path):
    draw = random.Random(1)
    kinds = ("impression", "click", "add", "buy")
    rows = [
        (draw.randint(1, 9), draw.randint(1, 5), draw.randint(0, 60), draw.choice(kinds))
        for _ in range(900)
    ]
    write_log(tmp_path / "log", rows[:400], rows[400:])
    rules = ["--events={cart: [add], own purchase: [buy]}", "--passed=true", "--attribution_s=5"]
    for engine in ("duckdb", "spark"):
        flags = [f"--input={tmp_path / 'log'}", f"--run_dir={tmp_path / engine}", *rules]
        main(["--source=events", f"--engine={engine}", *flags])
    found = [requests_in(tmp_path / engine) for engine in ("spark", "duckdb")]
    assert found[0] == found[1]
    columns = [name for name in found[0][0] if name.endswith("_item_ids")][2:]
    assert columns == ["cart_item_ids", "own purchase_item_ids", "passed_item_ids"]
    assert all(any(row[name] for row in found[0]) for name in columns)


def test_small_logs_give_the_requests_of_a_slow_reading_of_them(tmp_path):
    draw = random.Random(0)
    ranges = ((1, 30), (-1, 3), (0, 30))
    rows = [(*(draw.randint(*r) for r in ranges), draw.choice(KINDS)) for _ in range(1000)]
    folder = tmp_path / "user_id=3" / "a[b]*?{c},%20"
    folder.mkdir(parents=True)
    log = wildcards(write_log(folder / "log", rows[:300], rows[300:]))
    assert requests_in(prepare(spark_engine(log), folder / "data")) == requests_of_rows(rows)
    assert sorted(os.listdir(folder)) == ["data", "log"]
    table = pq.read_table(log / "b.parquet")
    narrow = table.set_column(0, "user_id", table["user_id"].cast("int32"))
    narrow = narrow.append_column("Note", narrow["event"]).append_column("note", narrow["event"])
    pq.write_table(narrow, log / "b.parquet")
    assert requests_in(prepare(spark_engine(log), tmp_path / "more")) == requests_of_rows(rows)


def test_csv_logs_are_read_as_duckdb_reads_them(tmp_path):
    rows = [(1, 5, time, kind) for time in range(9) for kind in KINDS]
    folder = write_csv(tmp_path / "csv" / "a.csv", rows[:20])
    note = '"said ""this"",\nthen\\"'
    more = [(kind, note, time, user, item) for user, item, time, kind in rows[20:]]
    write_csv(folder / "b.csv", more, "event,note,TIMESTAMP, User_ID ,item_id")
    by_spark = requests_in(prepare(spark_engine(folder), tmp_path / "spark"))
    assert by_spark == requests_in(prepare(duckdb_engine(folder), tmp_path / "duckdb"))
    assert by_spark == requests_of_rows(rows)


def test_every_form_is_read_as_duckdb_reads_it(tmp_path):
    start = 1_650_000_000_999
    rows = [(f"u{n // 2 % 3}", f"i{n // 2 % 5}", start + 1000 * n, KINDS[n % 2]) for n in range(40)]
    for day in (1, 2):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        lines = [(kind, time, item, user) for user, item, time, kind in rows[day - 1 :: 2]]
        write_csv(folder / "a.csv", [*lines, ("view", "soon", "i1", "u1")], "type|when|iid|uid")
        text = (folder / "a.csv").read_text().replace(",", "|")
        (folder / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
        (folder / "a.csv").unlink()
    names = {"user_id": "uid", "item_id": "iid", "timestamp": "when", "event": "type"}
    flags = {"columns": names, "timestamp_unit": "ms", "bad_share": 0.1}
    (tmp_path / "shop" / "items").mkdir(parents=True)
    items = pa.table({"item_id": [f"i{n}" for n in range(9)]})
    pq.write_table(items, tmp_path / "shop" / "items" / "a.parquet")
    told = {}
    for name, engine in (("spark", spark_engine), ("duckdb", duckdb_engine)):
        with closing(engine(tmp_path / "log", **flags)) as opened_log:
            with scratch_folder(tmp_path / name) as scratch:
                where = (tmp_path / name, tmp_path / "shop", scratch)
                told[name] = write_prepared_events(opened_log, *where)
    assert told["spark"] == told["duckdb"]
    assert "2 of 42 rows are bad and left out: 2 where timestamp is not" in told["spark"][3]
    assert "(day=1/a.csv.gz row 21: 'soon')" in told["spark"][3]
    assert requests_in(tmp_path / "spark") == requests_in(tmp_path / "duckdb")
    for path in ("ids/users.parquet", "ids/items.parquet", "items/a.parquet"):
        assert pq.read_table(tmp_path / "spark" / path) == pq.read_table(tmp_path / "duckdb" / path)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(1, 5, 10, "click")], "event must hold 'view' .* at least once, got click"),
        (
            [(1, 5, "1.5", "view"), (1, 5, 3, "click")],
            "is not a whole number .*csv row 1: '1.5'",
        ),
        (
            [(1, 5, 1_650_000_000, "view"), (1, 5, 1_650_000_000_001, "click")],
            "timestamp must be in one unit, got 1650000000 .seconds. and 1650000000001 .milli",
        ),
        ([(1, 6, 3, "click"), *((1, 5, time, "view") for time in range(4))], "got 0 for all 4"),
        (
            [(1, 5, 3, "click"), *[(1, 5, 3, "view")] * 100_000, (1, 5)],
            "^[^ ]*a.csv must be readable as CSV in UTF-8: CSV .*",
        ),
    ],
)
def test_logs_that_cannot_be_used_are_refused_by_name(tmp_path, rows, complaint):
    folder = write_csv(tmp_path / "csv" / "a.csv", rows)
    with pytest.raises(InputError, match=complaint):
        prepare(spark_engine(folder), tmp_path / "data")
    assert not (tmp_path / "data").exists()
