"""Times of logs: whole numbers in any unit, dates of any kind, seconds since 1970 in the end."""

from contextlib import closing
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.event_logs import (
    NAMES,
    duckdb_engine,
    prepare,
    requests_in,
    requests_of_rows,
    write_csv,
    write_log,
)
from torchrec_mm.columns.time_units import IN_A_SECOND
from torchrec_mm.data.logs import forms
from torchrec_mm.errors import InputError

START = 1_650_000_000
SECONDS = (0, 0, 1, 2, 3)
ROWS = [(4, 0, START + time, "view" if row else "click") for row, time in enumerate(SECONDS)]


def write_one_csv(folder, rows):
    return write_csv(folder / "a.csv", rows)


def with_times(times):
    rows = zip(ROWS, times, strict=True)
    return [(user, item, time, event) for (user, item, _, event), time in rows]


def write_times(folder, times):
    """ROWS with an Arrow array for their times."""
    folder.mkdir()
    table = pa.table(dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True)))
    pq.write_table(table.set_column(2, "timestamp", times), folder / "a.parquet")
    return folder


def notes_on(log, **log_format):
    with closing(duckdb_engine(log, **log_format)) as engine:
        counts, log_format = engine.count_events(), engine.log.log_format
        return list(counts.notes(log_format, counts.times.unit(log, log_format)))


def read(log, tmp_path, name="data", **log_format):
    return requests_in(prepare(duckdb_engine(log, **log_format), tmp_path / name))


@pytest.mark.parametrize("write", [write_log, write_one_csv])
@pytest.mark.parametrize("unit", IN_A_SECOND)
def test_whole_numbers_of_a_unit_are_told_by_their_size_and_rounded_down(tmp_path, write, unit):
    rows = [(*row[:2], (row[2] + 1) * IN_A_SECOND[unit] - 1, row[3]) for row in ROWS]
    log = write(tmp_path / "log", rows)
    (note,) = notes_on(log)
    word = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[unit]
    assert note == (
        f"timestamp is taken for {word} since 1970, 2022-04-15T05:20:00Z to "
        "2022-04-15T05:20:03Z; --timestamp_unit says otherwise"
    )
    assert read(log, tmp_path) == requests_of_rows(ROWS)


def test_a_given_unit_is_not_told_again_and_small_numbers_can_be_in_it(tmp_path):
    log = write_log(tmp_path / "log", with_times(1000 * time - 1 for time in SECONDS))
    assert notes_on(log, timestamp_unit="ms") == []
    found = read(log, tmp_path, timestamp_unit="ms")
    assert found == requests_of_rows(with_times(time - 1 for time in SECONDS))


@pytest.mark.parametrize("write", [write_log, write_one_csv])
def test_events_of_one_second_are_in_the_order_of_their_items_and_count_once(tmp_path, write):
    millis = [("click", 5, 0), ("view", 7, 900), ("view", 6, 950), ("view", 7, 990), ("view", 6, 0)]
    rows = [(1, item, 1000 * START + more, event) for event, item, more in millis]
    rows += [(1, 5, 1000 * (START + second), "view") for second in range(6)]
    found = read(write(tmp_path / "log", rows), tmp_path)
    assert found == requests_of_rows([(*row[:2], row[2] // 1000, row[3]) for row in rows])
    assert found[0]["candidate_item_ids"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("times", "given", "complaint"),
    [
        ([START, START * 1000], None, r"in one unit, got 1650000000 \(seconds\) and 16500000000"),
        ([0, START * 10**6], None, r"in one unit, got 0 \(seconds\) and 1650000000000000 \(micro"),
        ([5 * 10**10] * 2, None, "timestamp_unit must be given, s, ms, .* holds 50000000000, whi"),
        ([START, START * 1000], "s", "must be seconds .* milliseconds: divide by 1000"),
        ([START * 1000] * 2, "s", "must be seconds since 1970"),
        (["2022-04-15", str(START)], None, "must hold whole numbers or dates, got both, such as 1"),
        (["2022-04-15", "2022-04-16"], "ms", "timestamp_unit must be left out where .* dates, g"),
    ],
)
def test_times_of_two_units_or_of_none_for_sure_are_refused(tmp_path, times, given, complaint):
    log = write_one_csv(tmp_path / "log", [(1, 1, times[0], "view"), (1, 1, times[1], "click")])
    with pytest.raises(InputError, match=complaint):
        read(log, tmp_path, timestamp_unit=given)


@pytest.mark.parametrize("unit", IN_A_SECOND)
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_arrow_timestamps_are_instants_whatever_their_unit_and_zone(tmp_path, unit, zone):
    numbers = [row[2] * IN_A_SECOND[unit] for row in ROWS]
    log = write_times(tmp_path / "log", pa.array(numbers, pa.timestamp(unit, zone)))
    none = "timestamp has no zone in 5 rows, which are taken for UTC"
    assert notes_on(log) == ([] if zone else [none])
    assert read(log, tmp_path) == requests_of_rows(ROWS)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_day_is_its_first_second(tmp_path, kind):
    days = [datetime(2022, 4, 15 + day).date() for day in SECONDS]
    log = write_times(tmp_path / "log", pa.array(days, kind))
    rows = with_times(1_649_980_800 + day * 86_400 for day in SECONDS)
    assert read(log, tmp_path) == requests_of_rows(rows)


SPELLINGS = [
    lambda date: date.isoformat(),
    lambda date: date.isoformat(" "),
    lambda date: date.isoformat("T", "seconds").replace("+00:00", "Z"),
    lambda date: date.isoformat("T", "milliseconds"),
    lambda date: date.strftime("%Y-%m-%dT%H:%M:%S%z"),
]
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATES = st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1), timezones=OFFSETS | st.none())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(DATES, st.sampled_from(SPELLINGS)), min_size=1))
def test_dates_of_iso_8601_are_those_of_python(dates):
    texts = [spell(date) for date, spell in dates]
    with forms.Typist({"timestamp": forms.ISO}) as typist:
        typed = typist(pa.table({"timestamp": texts}), "log")
    assert not typed.bad and all(typed.good["is_date"].to_pylist())
    zoned = [date.tzinfo is not None for date, _ in dates]
    assert typed.good["is_zoned"].to_pylist() == zoned
    utc = [date if date.tzinfo else date.replace(tzinfo=timezone.utc) for date, _ in dates]
    since = [date - datetime(1970, 1, 1, tzinfo=timezone.utc) for date in utc]
    assert typed.good["timestamp"].to_pylist() == [each // timedelta(seconds=1) for each in since]


@pytest.mark.parametrize(
    "text",
    [
        *("2022-02-30", "2022-4-15", "15.04.2022", "2022-04-15T25:00", "2022-04-15T10:61"),
        *("2022-04-15T10", "20220415T100000", "2022-04-15T10:00+2", " 2022-04-15", "now"),
    ],
)
def test_what_is_no_date_of_iso_8601_is_a_bad_row(tmp_path, text):
    log = write_one_csv(tmp_path / "log", [(1, 1, "2022-04-15", "click"), (1, 1, text, "view")])
    with pytest.raises(InputError, match=r"got 1 of 2: 1 where timestamp is not .* \(a.csv row 2"):
        read(log, tmp_path)
