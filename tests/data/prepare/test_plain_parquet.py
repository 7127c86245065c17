"""Plain Parquet is read where it lies, and gives what any other log gives."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.event_logs import (
    EVENTS,
    NAMES,
    RULES,
    duckdb_engine,
    opened,
    prepare,
    requests_in,
    requests_of_rows,
    write_csv,
    write_log,
)
from torchrec_mm.data.prepare import events_duckdb
from torchrec_mm.data.prepare.plain_parquet import is_plain

ROWS = [(4, 0, 0, "click"), *((4, 0, time, "view") for time in range(4))]
GOOD = st.lists(EVENTS, max_size=20)
FAULTY = st.none() | st.integers(-(2**63), 2**63 - 1)


def kept(engine):
    return os.listdir(engine._read)


def test_its_rows_are_not_copied_and_those_of_others_are(tmp_path):
    for log in (write_log(tmp_path / "log", ROWS), write_csv(tmp_path / "csv" / "a.csv", ROWS)):
        engine = duckdb_engine(log)
        engine.count_events()
        assert bool(kept(engine)) == (log.name == "csv")
        engine.close()


@pytest.mark.parametrize("kind", [pa.string(), pa.timestamp("s"), pa.uint64()])
def test_another_type_of_a_column_is_not_plain_unless_its_values_are_whole_numbers(tmp_path, kind):
    log = write_log(tmp_path / "log", ROWS)
    assert is_plain(opened(log))
    table = pq.read_table(log / "0.parquet")
    name = "timestamp" if pa.types.is_timestamp(kind) else "user_id"
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, table[name].cast(kind)), log / "0.parquet")
    assert is_plain(opened(log)) == (kind == pa.uint64())
    assert requests_in(prepare(duckdb_engine(log), tmp_path / "data"))


def test_an_event_that_a_folder_names_is_not_plain(tmp_path):
    for event in ("view", "click"):
        (tmp_path / "log" / f"event={event}").mkdir(parents=True)
        table = pa.table([list(column) for column in zip(*ROWS, strict=True)], names=NAMES)
        some = table.filter(pc.equal(table["event"], event)).drop_columns("event")
        pq.write_table(some, tmp_path / "log" / f"event={event}" / "a.parquet")
    assert not is_plain(opened(tmp_path / "log"))
    data = prepare(duckdb_engine(tmp_path / "log"), tmp_path / "data")
    assert requests_in(data) == requests_of_rows(ROWS)


@settings(max_examples=50, deadline=None)
@given(GOOD, st.lists(st.tuples(FAULTY, FAULTY, st.none(), st.just("view")), max_size=2))
def test_what_is_counted_is_what_a_copy_counts(tmp_path_factory, rows, bad):
    log = write_log(tmp_path_factory.mktemp("in") / "log", [*ROWS, *rows, *bad])
    engine = duckdb_engine(log)
    in_place = engine.count_events()
    assert bool(kept(engine)) == bool(bad)
    engine.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events_duckdb, "is_plain", lambda log: False)
        engine = duckdb_engine(log)
        assert engine.count_events() == in_place
        engine.close()


def test_quotes_in_kinds_names_and_paths_are_what_they_are(tmp_path):
    rows = [
        (user, item, time, "it's") if event == "view" else (user, item, time, 'a "b"')
        for user, item, time, event in ROWS
    ]
    folder = tmp_path / "o'clock [*]"
    folder.mkdir()
    log = write_log(folder / "log", rows)
    names = ['u"s', "i'd", "t", "e v"]
    table = pq.read_table(log / "0.parquet").rename_columns(names)
    pq.write_table(table, log / "0.parquet")
    rules = replace(RULES, shown=("it's",), clicked=('a "b"',))
    columns = dict(zip(("user_id", "item_id", "timestamp", "event"), names, strict=True))
    data = prepare(duckdb_engine(log, rules, columns=columns), folder / "data")
    assert requests_in(data) == requests_of_rows(ROWS)
