"""Event logs through DuckDB: any files, any order, bounded memory."""

import errno
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.event_logs import (
    NAMES,
    RULES,
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
from torchrec_mm.data.prepare import event_counts
from torchrec_mm.errors import InputError


def write_one_csv(folder, rows):
    return write_csv(folder / "a.csv", rows)


EVENTS = st.tuples(
    st.integers(1, 3),
    st.integers(-1, 1),
    st.integers(0, 15),
    st.sampled_from(["view", "click", "basket"]),
)
BOTH_SPLITS = [(4, 0, 0, "click"), *((4, 0, time, "view") for time in range(4))]


@settings(max_examples=25)
@given(st.lists(EVENTS, max_size=40), st.integers(1, 40), st.integers(0, 40))
def test_requests_are_those_of_a_slow_reading_however_the_log_is_cut(
    tmp_path_factory, rows, cut, again
):
    folder = tmp_path_factory.mktemp("log")
    rows = rows + BOTH_SPLITS
    files = [part for part in (rows[:cut], rows[cut:], rows[:again]) if part]
    run_dir = prepare(duckdb_engine(write_log(folder / "log", *files)), folder / "data")
    assert requests_in(run_dir) == requests_of_rows(rows)
    names = ("train", "test")
    tables = [pq.read_table(run_dir / "requests" / name).to_pylist() for name in names]
    for table in tables:
        order = [(row["user_id"], row["timestamp"]) for row in table]
        assert order == sorted(order)


def test_events_of_one_second_are_in_the_order_of_their_items_not_of_the_files(tmp_path):
    clicks = [(4, item, 0, "click") for item in range(9, 0, -1)]
    views = [(4, item, 1, "view") for item in range(9, 0, -1)]
    log = write_log(tmp_path / "log", [*clicks, *views], [(4, 0, 1, "view"), (4, 5, 0, "view")])
    engine = duckdb_engine(log)
    engine.count_events()
    events = pa.Table.from_batches(engine.sorted_events())
    assert events["item_id"].to_pylist() == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, *range(10)]
    assert events["kind"].to_pylist()[4:6] == [0, 1]


def test_csv_logs_give_the_same_requests_as_parquet(tmp_path):
    rows = [*BOTH_SPLITS, (1, 5, 10, "view"), (1, 6, 12, "view"), (1, 5, 11, "click")]
    folder = write_csv(tmp_path / "csv" / "a.csv", rows[:2])
    more = [
        (event, f'"said ""{n}"",\nthen"', time, user, item)
        for n, (user, item, time, event) in enumerate(rows[2:])
    ]
    write_csv(folder / "b.csv", more, "event,note,TIMESTAMP, User_ID ,item_id")
    prepared = prepare(duckdb_engine(folder), tmp_path / "data")
    assert requests_in(prepared) == requests_of_rows(rows)


def test_a_path_may_hold_wildcards(tmp_path):
    log = wildcards(write_log(tmp_path / "log", BOTH_SPLITS[:2], BOTH_SPLITS[2:]))
    prepared = prepare(duckdb_engine(log), tmp_path / "data")
    assert requests_in(prepared) == requests_of_rows(BOTH_SPLITS)


def test_without_a_catalogue_items_are_the_ids_shown_or_clicked(tmp_path):
    log = write_log(tmp_path / "log", [*BOTH_SPLITS, (1, 5, 9, "click"), (1, 7, 20, "basket")])
    run_dir = prepare(duckdb_engine(log), tmp_path / "data")
    assert read_items(run_dir).item_ids.tolist() == [0, 5]


def test_a_candidate_missing_from_the_given_catalogue_is_refused(tmp_path):
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"item_id": [0, 6]}), tmp_path / "items" / "a.parquet")
    log = write_log(tmp_path / "log", [*BOTH_SPLITS, (1, 7, 1, "click")])
    assert (prepare(duckdb_engine(log), tmp_path / "ok", tmp_path) / "items/a.parquet").exists()
    log = write_log(tmp_path / "log", [*BOTH_SPLITS, (1, 5, 10, "view")])
    with pytest.raises(InputError, match="item_id must be in .*items, got 5"):
        prepare(duckdb_engine(log), tmp_path / "data", tmp_path)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(1, 5, 10, "click")], "event must hold 'view' .* at least once, got click"),
        ([(1, 5, 10, "view")], "event must hold 'click' .* at least once, got view"),
        (
            [*BOTH_SPLITS, (1, 5, -(10**13), "view")],
            "timestamp_unit must be given, .* holds -1(0*),",
        ),
        (
            [(1, 5, None, "view"), (1, 5, 3, "click")],
            r"1 of 2: 1 where timestamp is missing \(0.parquet row 1\)",
        ),
        ([(1, 5, 3, None), (1, 5, 3, "click")], r"1 where event is missing \(0.parquet row 1\)"),
        ([(1, 5, "3", "view")], "1 where timestamp is not a date of ISO 8601 .*row 1: '3'"),
        ([(1, 5, 3.0, "view")], "timestamp must be int64, a time, .* got double"),
        ([(1, 5.0, 3, "view")], "item_id must be int64 or text, got double"),
        ([(1, 5, 3, "view"), (1, 5, 3, "click")], "requests/test must hold .* got 0: too few rows"),
        (
            [*BOTH_SPLITS, (1, 5, 9, " click")],
            "not hold ' click', which is 'click' .events: click. but",
        ),
        (
            [*BOTH_SPLITS, (1, 5, 9, "View\r")],
            r"'View\\r', which is 'view' .events: impression",
        ),
        ([(1, 5, 9, "\u200bVIEW\xa0")] * 7, "which is 'view' .* got 7 rows of it"),
    ],
)
def test_logs_that_cannot_be_used_are_refused_by_name(tmp_path, rows, complaint):
    log = write_log(tmp_path / "log", rows)
    with pytest.raises(InputError, match=complaint):
        prepare(duckdb_engine(log), tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("write", [write_log, write_one_csv])
@pytest.mark.parametrize("unit", [10**3, 10**6, 10**9])
def test_times_of_two_units_are_refused_in_any_of_the_files(tmp_path, write, unit):
    rows = [(user, item, 1_650_000_000 + time, kind) for user, item, time, kind in BOTH_SPLITS]
    log = write(tmp_path / "log", rows)
    assert requests_in(prepare(duckdb_engine(log), tmp_path / "ok")) == requests_of_rows(rows)
    late = [(*rows[0][:2], 1_650_000_000 * unit, "view")]
    with pytest.raises(InputError, match="must be in one unit, got 1650000000 .seconds. and 165"):
        prepare(duckdb_engine(write(tmp_path / "log", rows + late)), tmp_path / "data")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["Item_ID", " item_id", "EVENT", "Timestamp ", "USER_ID"])
def test_a_column_like_another_but_for_case_or_spaces_is_refused(tmp_path, name, first):
    log = write_log(tmp_path / "log", BOTH_SPLITS, BOTH_SPLITS)
    table = pq.read_table(log / "1.parquet")
    wrong = table.add_column(0 if first else table.num_columns, name, table["user_id"])
    pq.write_table(wrong, log / "1.parquet")
    promised = name.lower().strip()
    with pytest.raises(InputError, match=f"1.parquet column '{name}' must be named {promised}"):
        opened(log)
    header = f"{name},{','.join(NAMES)}" if first else f"{','.join(NAMES)},{name}"
    write_csv(tmp_path / "csv" / "a.csv", [(1, 2, 3, 4, 5)], header)
    with pytest.raises(InputError, match=f"a.csv must have one column {promised}, got '"):
        opened(tmp_path / "csv")


def test_columns_that_are_not_needed_may_be_called_anything(tmp_path):
    log = write_log(tmp_path / "log", BOTH_SPLITS)
    table = pq.read_table(log / "0.parquet")
    for name in ("Note", "note", "c0", "filename", "events"):
        table = table.add_column(0, name, [["x"] * len(BOTH_SPLITS)])
    pq.write_table(table, log / "0.parquet")
    csv = write_csv(tmp_path / "csv" / "a.csv", BOTH_SPLITS[:2], ",".join(NAMES))
    rows = [("", "x", *row, "") for row in BOTH_SPLITS[2:]]
    write_csv(csv / "b.csv", rows, f",Note,{','.join(NAMES)},")
    for folder in (log, csv):
        prepared = prepare(duckdb_engine(folder), tmp_path / f"{folder.name}-data")
        assert requests_in(prepared) == requests_of_rows(BOTH_SPLITS)


def test_a_column_of_events_that_holds_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(event_counts, "MAX_KINDS", 4)
    rows = [*BOTH_SPLITS, *((1, 1, 1, f"said {n % 3}") for n in range(6))]
    with pytest.raises(InputError, match="event must hold at most 4 kinds .* more: 'view', 'said"):
        prepare(duckdb_engine(write_log(tmp_path / "log", rows)), tmp_path / "data")
    log = write_log(tmp_path / "log", [row for row in rows if row[3] != "said 2"])
    assert requests_in(prepare(duckdb_engine(log), tmp_path / "data"))


def test_an_id_that_does_not_fit_is_refused(tmp_path):
    ids = pa.array([2**64 - 1, 1], pa.uint64())
    log = write_log(tmp_path / "log", [(1, 5, 3, "view"), (1, 5, 3, "click")])
    table = pq.read_table(log / "0.parquet").set_column(0, "user_id", ids)
    pq.write_table(table, log / "0.parquet")
    with pytest.raises(InputError, match="user_id is not an int64 .*row 1: '1844674407370955161"):
        prepare(duckdb_engine(log), tmp_path / "data")


@pytest.mark.parametrize("value", ["", "1.5", "1e3", "x", "99999999999999999999"])
def test_a_csv_value_that_is_no_whole_number_is_refused(tmp_path, value):
    rows = [(1, 5, 3, "click"), (1, 5, value, "view"), (1, 5, 3, "")]
    folder = write_csv(tmp_path / "csv" / "a.csv", rows)
    with pytest.raises(InputError, match=r"1 where timestamp is .*\(a.csv row 2"):
        prepare(duckdb_engine(folder), tmp_path / "data")


def test_a_line_of_another_length_is_refused(tmp_path):
    rows = [(1, 5, 3, "click")] * 100_000  # the first block is read before, for the header
    folder = write_csv(tmp_path / "csv" / "a.csv", [*rows, (1, 5)])
    with pytest.raises(
        InputError, match="a.csv must be readable as CSV .* Expected 4 columns, got"
    ):
        prepare(duckdb_engine(folder), tmp_path / "data")


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    log = write_log(tmp_path / "log", BOTH_SPLITS * 1000)
    whole = (log / "0.parquet").read_bytes()
    (log / "0.parquet").write_bytes(whole[:4] + bytes(100) + whole[104:])
    with pytest.raises(InputError, match="log could not be read"):
        prepare(duckdb_engine(log), tmp_path / "data")
    (log / "0.parquet").write_bytes(whole[:50])
    with pytest.raises(InputError, match="0.parquet must be a readable Parquet file"):
        opened(log)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("user_id,item_id,timestamp\n1,1,1\n", "must have a column event, got user_id"),
        ("", "header"),
    ],
)
def test_a_csv_file_without_the_columns_is_refused(tmp_path, content, complaint):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=complaint):
        opened(tmp_path)


def test_too_little_memory_is_named(tmp_path):
    rows = [(n % 7, n, n, "view" if n % 3 else "click") for n in range(200_000)]
    log = write_log(tmp_path / "log", rows)
    with pytest.raises(InputError, match="memory_gb must be more, got 0.002"):
        prepare(duckdb_engine(log, RULES, 0.002), tmp_path / "data")


def test_what_finds_no_room_beside_run_dir_is_a_full_disk(tmp_path):
    draw_log(tmp_path / "log", 1_000_000)
    rules = replace(RULES, shown=("impression",))
    with closing(duckdb_engine(tmp_path / "log", rules, 0.03)) as engine:
        engine.count_events()
        engine._database.execute("SET max_temp_directory_size = '1KB'")
        with pytest.raises(OSError, match="No space left on device: .*scratch") as caught:
            list(engine.sorted_events())
    assert caught.value.errno == errno.ENOSPC
