"""Rows that cannot be used: counted by reason with file and row, up to a share."""

import pytest

from tests.helpers.event_logs import (
    duckdb_engine,
    opened,
    prepare,
    requests_in,
    requests_of_rows,
    write_csv,
    write_log,
)
from torchrec_mm.data.prepare.prepared_events import write_prepared_events
from torchrec_mm.errors import InputError
from torchrec_mm.files import scratch_folder

GOOD = [(4, 0, 0, "click"), *((4, 0, time, "view") for time in range(4))]
BAD = [("", 0, 1, "view"), ("x", 0, 1, "view"), (4, "1.5", 1, "click"), (4, 0, "soon", "view")]


def test_bad_rows_up_to_a_share_are_left_out_and_told_by_reason_with_the_first_of_each(tmp_path):
    write_csv(tmp_path / "log" / "a.csv", [*GOOD[:2], BAD[0]])
    write_csv(tmp_path / "log" / "b.csv", [*BAD, BAD[1], *GOOD[2:]])
    engine = duckdb_engine(tmp_path / "log", bad_share=0.6)
    with scratch_folder(tmp_path / "data") as scratch:
        notes = write_prepared_events(engine, tmp_path / "data", None, scratch)
    engine.close()
    assert requests_in(tmp_path / "data") == requests_of_rows(GOOD)
    whole = "not a whole number of int64"
    assert notes[1] == (
        "6 of 11 rows are bad and left out: 2 where user_id is missing (a.csv row 3: ''); "
        f"2 where user_id is {whole} (b.csv row 2: 'x'); 1 where item_id is {whole} (b.csv row 3: "
        f"'1.5'); 1 where timestamp is {whole} or a date of ISO 8601 (b.csv row 4: 'soon')"
    )


@pytest.mark.parametrize(("share", "refused"), [(0, True), (0.16, True), (1 / 6, False)])
def test_more_than_the_share_is_refused(tmp_path, share, refused):
    engine = duckdb_engine(write_log(tmp_path / "log", [*GOOD, (4, None, 3, "view")]))
    engine.log = opened(tmp_path / "log", bad_share=share)
    if not refused:
        prepare(engine, tmp_path / "data")
        return
    complaint = rf"log must hold at most bad_share = {share} bad rows, got 1 of 6: 1 where item_id"
    with pytest.raises(InputError, match=complaint + r" is missing \(0.parquet row 6\)$"):
        prepare(engine, tmp_path / "data")


def test_rows_of_other_events_are_never_bad(tmp_path):
    log = write_log(tmp_path / "log", [*GOOD, (None, None, None, "login")])
    assert requests_in(prepare(duckdb_engine(log), tmp_path / "data")) == requests_of_rows(GOOD)


def test_rows_are_counted_through_all_row_groups_and_blocks(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    from torchrec_mm.data.logs import reading

    rows = [*GOOD * 10, (4, None, 3, "view")]
    log = write_log(tmp_path / "log", rows)
    pq.write_table(pq.read_table(log / "0.parquet"), log / "0.parquet", row_group_size=7)
    with pytest.raises(InputError, match="0.parquet row 51"):
        prepare(duckdb_engine(log), tmp_path / "data")
    monkeypatch.setattr(reading, "BLOCK_BYTES", 100)
    rows = [*(("4", "0\n", *row[2:]) for row in GOOD * 10), (4, "", 3, "view")]
    quoted = [(f'"{item}"' if at == 1 else item for at, item in enumerate(row)) for row in rows]
    log = write_csv(tmp_path / "csv" / "a.csv", quoted)
    with pytest.raises(InputError, match="item_id is missing .a.csv row 51: ''"):
        prepare(duckdb_engine(log), tmp_path / "data")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_at_least_0_and_below_1(tmp_path, share):
    with pytest.raises(InputError, match="bad_share must be at least 0 and below 1, got"):
        opened(write_log(tmp_path / "log", GOOD), bad_share=share)
