"""Event logs as people have them: names, formats, folders and kinds of events."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.event_logs import (
    NAMES,
    duckdb_engine,
    opened,
    prepare,
    requests_in,
    requests_of_rows,
    write_csv,
    write_log,
)
from torchrec_mm.data.logs.file_forms import found_out
from torchrec_mm.errors import InputError

ROWS = [(4, 0, 0, "click"), *((4, 0, time, "view") for time in range(4)), (1, 5, 9, "view")]


def requests_of_log(log, tmp_path, **log_format):
    return requests_in(prepare(duckdb_engine(log, **log_format), tmp_path / "data"))


def write_json_lines(path, rows, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path.parent


def compressed(log, ending):
    for path in log.iterdir():
        if ending == ".gz":
            path.with_name(path.name + ending).write_bytes(gzip.compress(path.read_bytes()))
        else:
            with pa.output_stream(str(path) + ending, compression="zstd") as stream:
                stream.write(path.read_bytes())
        path.unlink()
    return log


OTHERS = {"user_id": "uid", "item_id": "iid", "timestamp": "time", "event": "type"}


def renamed(write, log, rows, names):
    if write is write_log:
        write_log(log, rows)
        table = pq.read_table(log / "0.parquet").rename_columns(list(names))
        pq.write_table(table, log / "0.parquet")
    elif write is write_csv:
        write_csv(log / "0.csv", rows, ",".join(names))
    else:
        write_json_lines(log / "0.jsonl", rows, names)
    return log


WRITERS = [write_log, write_csv, write_json_lines]


@pytest.mark.parametrize("write", WRITERS)
def test_columns_of_other_names_are_read_under_those_of_the_contract(tmp_path, write):
    log = renamed(write, tmp_path / "log", ROWS, OTHERS.values())
    assert requests_of_log(log, tmp_path, columns=OTHERS) == requests_of_rows(ROWS)


@pytest.mark.parametrize("write", WRITERS)
def test_a_name_that_a_file_does_not_have_is_refused_by_name(tmp_path, write):
    log = renamed(write, tmp_path / "log", ROWS, NAMES)
    with pytest.raises(InputError, match="0.* must have a column uid, got user_id, item_id, tim"):
        opened(log, columns={"user_id": "uid"})


def test_a_column_like_a_mapped_one_but_for_case_is_refused(tmp_path):
    log = renamed(write_log, tmp_path / "log", ROWS, ("uid", *NAMES[1:]))
    table = pq.read_table(log / "0.parquet")
    pq.write_table(table.append_column("UID", table["uid"]), log / "0.parquet")
    with pytest.raises(InputError, match="column 'UID' must be named uid"):
        opened(log, columns={"user_id": "uid"})


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"user": "uid"}, "columns must map some of user_id, item_id, timestamp, event, got user"),
        ({"user_id": "a", "item_id": "a"}, "columns must name a column of the files once, got a"),
        ({"user_id": "item_id"}, "columns must name a column of the files once, got item_id"),
        ({"user_id": ""}, "columns must name a column of the files for user_id, got ''"),
    ],
)
def test_a_map_of_names_that_says_nothing_or_two_things_is_refused(tmp_path, columns, complaint):
    with pytest.raises(InputError, match=complaint):
        opened(write_log(tmp_path / "log", ROWS), columns=columns)


@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_the_delimiter_of_csv_is_the_one_that_gives_all_columns(tmp_path, delimiter):
    log = tmp_path / "log"
    log.mkdir()
    lines = [(*NAMES, "a,b;c|d\te"), *((*row, "x,y;z|\t") for row in ROWS)]
    text = [delimiter.join(f'"{field}"' for field in line) + "\n" for line in lines]
    (log / "a.csv").write_text("".join(text))
    said = [f"fields of CSV files are taken to be divided by {delimiter!r}"]
    read = opened(log)
    assert found_out(read.files, read.log_format) == ([] if delimiter == "," else said)
    assert requests_of_log(log, tmp_path) == requests_of_rows(ROWS)


def test_any_delimiter_can_be_given_and_another_than_the_files_is_refused(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    (log / "a.tsv").write_text("\n".join("^".join(map(str, row)) for row in [NAMES, *ROWS]))
    assert requests_of_log(log, tmp_path, delimiter="^") == requests_of_rows(ROWS)
    with pytest.raises(InputError, match=r"must have a column user_id, got user_id\^item_id"):
        opened(log)
    with pytest.raises(InputError, match="delimiter must be one ASCII character, got ', '"):
        opened(log, delimiter=", ")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("write", WRITERS[1:])
def test_compressed_text_is_read_beside_plain_text(tmp_path, write, ending):
    log = compressed(renamed(write, tmp_path / "log", ROWS[:3], NAMES), ending)
    write(log / ("b.csv" if write is write_csv else "b.ndjson"), ROWS[3:])
    assert requests_of_log(log, tmp_path) == requests_of_rows(ROWS)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_short_is_refused(tmp_path, ending):
    rows = [(n % 7, n, n, "view" if n % 3 else "click") for n in range(20_000)]
    log = compressed(write_csv(tmp_path / "log" / "a.csv", rows), ending)
    (path,) = log.iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=f"a.csv{ending} must be "):
        requests_of_log(log, tmp_path)


def test_json_lines_may_lack_what_is_null_and_hold_what_is_not_needed(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    good = [dict(zip(NAMES, row, strict=True)) | {"page": {"a": [1]}} for row in ROWS]
    lines = [{"note": "x"}, *good[::-1]]
    (log / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n\n" for line in lines))
    found = requests_of_log(log, tmp_path, bad_share=0.2)
    assert found == requests_of_rows(ROWS)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[1]", r"a.jsonl row 1 must be a JSON object, got \[1\]"),
        ("{'a': 1}", "a.jsonl row 1 must be JSON in UTF-8"),
        ('{"user_id": 1}', "a.jsonl must have a column item_id, got user_id"),
        (
            '{"user_id": 1.5, "item_id": 1, "timestamp": 1, "event": "view"}',
            "column user_id must be int64 or text, got double",
        ),
        (
            '{"user_id": 1, "item_id": 1, "timestamp": true, "event": "view"}',
            "column timestamp must be int64, a time, or text .* got bool",
        ),
    ],
)
def test_json_that_is_no_log_is_refused(tmp_path, line, complaint):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=complaint):
        opened(tmp_path)


def test_an_id_that_is_text_in_some_lines_of_json_is_refused(tmp_path):
    log = write_json_lines(tmp_path / "log" / "a.jsonl", [*ROWS, ("x", 5, 9, "view")])
    with pytest.raises(InputError, match="a.jsonl must be readable as JSON lines .*user_id"):
        requests_of_log(log, tmp_path)


@pytest.mark.parametrize("write", WRITERS)
def test_the_columns_that_folders_name_are_data(tmp_path, write):
    log = tmp_path / "log"
    for user, item, time, event in ROWS:
        folder = log / f"type={event}" / f"uid={user}"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{time}"
        if write is write_log:
            pq.write_table(pa.table({"item_id": [item], "timestamp": [time]}), f"{part}.parquet")
        elif write is write_csv:
            write_csv(part.with_suffix(".csv"), [(item, time)], "item_id,timestamp")
        else:
            write_json_lines(part.with_suffix(".jsonl"), [(item, time)], ("item_id", "timestamp"))
    (log / "_SUCCESS").touch()
    names = {"event": "type", "user_id": "uid"}
    assert requests_of_log(log, tmp_path, columns=names) == requests_of_rows(ROWS)


def test_a_date_in_a_folders_name_can_be_the_time(tmp_path):
    rows = [(4, 0, day * 86_400, event) for day in range(1, 6) for event in ("view", "click")]
    for user, item, time, event in rows:
        part = tmp_path / "log" / f"day=1970-01-0{time // 86_400 + 1}"
        part.mkdir(parents=True, exist_ok=True)
        write_csv(part / f"{event}.csv", [(user, item, event)], "user_id,item_id,event")
    found = requests_of_log(tmp_path / "log", tmp_path, columns={"timestamp": "day"})
    assert found == requests_of_rows(rows)


def test_names_of_folders_are_decoded_and_a_null_is_a_bad_row(tmp_path):
    for name in ("tap%2Fopen", "view", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "log" / f"event={name}"
        folder.mkdir(parents=True)
        write_csv(folder / "a.csv", [(1, 1, 1), (1, 1, 5)], ",".join(NAMES[:3]))
    counts = duckdb_engine(tmp_path / "log").count_events()
    assert dict(counts.rows) == {None: 2, "tap/open": 2, "view": 2}
    (bad,) = counts.bad
    where = "event=__HIVE_DEFAULT_PARTITION__/a.csv row 1"
    assert (bad.reason, bad.rows, bad.where) == ("event is missing", 2, where)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["day=1/a.csv", "b.csv"], "in partitions of the same columns, got b.csv and day=1/a.csv"),
        (["day=1/a.csv", "hour=1/a.csv"], "got day=1/a.csv and hour=1/a.csv"),
        (["day=1/day=2/a.csv"], "must name a column that no folder above it names, got day"),
        (["day=1/more/a.csv"], "got more: it is a folder"),
        (["day=1/a.csv", "day=2/a.parquet"], "of one kind, got day=1/a.csv and day=2/a.parquet"),
        (["day=1/_a.csv"], "day=1 must hold at least one"),
        (["event=view/a.csv"], "must not have a column event, which the name of its folder gives"),
    ],
)
def test_folders_that_leave_something_open_are_refused(tmp_path, names, complaint):
    for name in names:
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(path, ROWS) if path.suffix == ".csv" else path.touch()
    with pytest.raises(InputError, match=complaint):
        opened(tmp_path / "log")
