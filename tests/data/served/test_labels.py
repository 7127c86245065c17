"""What a scorer's log becomes: each request once, its candidates labelled by what came of them."""

import json
import random
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.prepare import main
from torchrec_mm.data.contract.served import OF_SERVER

NOW = int(time.time())
WAIT_S = 1800
OLD = NOW - 10 * WAIT_S
LISTS = {name: pa.list_(pa.int64()) for name in ("behaviour_item_ids", "candidate_item_ids")}
SCHEMA = pa.schema(
    {"request_id": pa.string(), "user_id": pa.int64(), "timestamp": pa.int64(), **LISTS}
    | {"city": pa.int64(), "candidate_source": pa.list_(pa.string()), **OF_SERVER}
)


def served(request_id: str, *candidates: int, at: int = OLD, **more: object) -> dict:
    """A row of the log."""
    row = {"request_id": request_id, "user_id": 7, "timestamp": at, "served_at": at, "city": 3}
    row |= {"behaviour_item_ids": [1, 2], "candidate_item_ids": [*candidates]}
    row |= {"candidate_source": [f"from {item}" for item in candidates], "served_by": "step-1"}
    return row | {"click_probabilities": [0.5] * len(candidates)} | more


@pytest.fixture
def log(tmp_path):
    """Writes a file of a log, under the next name."""

    def write(*rows: dict) -> Path:
        folder = tmp_path / "log"
        folder.mkdir(exist_ok=True)
        name = f"{len([*folder.iterdir()]):016}-aa.parquet"
        pq.write_table(pa.Table.from_pylist([*rows], SCHEMA), folder / name)
        return folder

    return write


@pytest.fixture
def clicks(tmp_path):
    """Writes outcomes, JSON lines."""

    def write(*rows: dict) -> Path:
        (tmp_path / "outcomes").mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "outcomes" / "all.jsonl").write_text(lines)
        return tmp_path / "outcomes"

    return write


def label(request_id: str, item_id: int, value: int = 1) -> dict:
    return {"request_id": request_id, "item_id": item_id, "label": value}


def click(request_id: str, item_id: int, at: int, event: str = "click") -> dict:
    return {"request_id": request_id, "item_id": item_id, "timestamp": at, "event": event}


def flags(tmp_path: Path, *more: str, run_dir: str = "data") -> list[str]:
    words = ["--source", "request_log", "--input", tmp_path / "log", *more]
    words += ["--outcomes", tmp_path / "outcomes", "--run_dir", tmp_path / run_dir]
    return [str(word) for word in words]


def added(tmp_path: Path, *more: str) -> dict[str, list[int]]:
    """Labels by request, of all files of a folder that was added to."""
    main(flags(tmp_path, "--add", "true", *more, run_dir="spool"))
    return labels_in(tmp_path / "spool")


def labels_in(folder: Path) -> dict[str, list[int]]:
    rows = pq.read_table(folder).to_pylist() if any(folder.glob("**/*.parquet")) else []
    assert len({row["request_id"] for row in rows}) == len(rows)
    return {row["request_id"]: row["labels"] for row in rows}


def test_a_candidate_is_clicked_if_an_outcome_of_its_request_says_so(log, clicks, tmp_path, capsys):
    log(served("a", 10, 20, 30), served("b", 10, 10), served("c", 20))
    clicks(label("a", 20), label("a", 30, 0), label("b", 10), label("b", 10))
    assert added(tmp_path) == {"a": [0, 1, 0], "b": [1, 1], "c": [0]}
    said = capsys.readouterr().err
    assert "1 of 4 outcomes repeat another" in said
    assert "000000001.parquet holds 3 requests, 6 candidates, 3 of label 1" in said


def test_events_count_up_to_the_wait_and_by_their_kind(log, clicks, tmp_path, capsys):
    log(served("a", 10, 20, 30))
    clicks(
        click("a", 10, OLD + WAIT_S, "tap"),
        click("a", 20, OLD + WAIT_S + 1, "open"),
        click("a", 30, OLD, "view"),
    )
    assert added(tmp_path, "--events", "{click: [tap, open]}") == {"a": [1, 0, 0]}
    said = capsys.readouterr().err
    assert "1 of 2 outcomes came more than wait_s = 1800 seconds after their requests" in said
    assert "1 events are none of tap, open, and left out" in said


def test_times_in_milliseconds_are_told_by_their_size(log, clicks, tmp_path):
    log(served("a", 10, 20))
    clicks(click("a", 10, 1000 * (OLD + WAIT_S)), click("a", 20, 1000 * (OLD + WAIT_S + 1)))
    assert added(tmp_path) == {"a": [1, 0]}


def test_what_leads_nowhere_changes_nothing_and_is_counted(log, clicks, tmp_path, capsys):
    log(served("a", 10, 20))
    clicks(label("a", 10), label("x", 10), label("x", 20), label("a", 99))
    assert added(tmp_path) == {"a": [1, 0]}
    said = capsys.readouterr().err
    assert "2 of 4 outcomes are of requests that the log does not hold" in said
    assert "1 of 4 outcomes are of items that were no candidates of their requests" in said


def test_a_request_that_was_asked_again_counts_as_it_was_answered_last(
    log, clicks, tmp_path, capsys
):
    log(served("a", 10, at=OLD + 5), served("a", 20, at=OLD + 9), served("b", 1))
    log(served("a", 30, at=OLD + 7))
    clicks(label("a", 20))
    assert added(tmp_path) == {"a": [1], "b": [0]}
    assert "2 of 4 answers are to requests that were asked again" in capsys.readouterr().err


def test_young_requests_are_left_by_name_and_labelled_by_a_later_run(log, clicks, tmp_path, capsys):
    log(served("a", 10))
    log(served("b", 10), served("c", 20, at=NOW))
    clicks(label("a", 10), label("b", 10), label("c", 20))
    assert added(tmp_path) == {"a": [1]}
    said = capsys.readouterr().err
    assert f"2 requests in 1 files of the log, {1:016}-aa.parquet, are left for another run" in said
    assert "outcomes are of" not in said
    assert added(tmp_path, "--wait_s", "0") == {"a": [1], "b": [1], "c": [1]}
    assert "1 of 3 outcomes are of requests that were labelled before" in capsys.readouterr().err


def test_each_run_adds_one_file_of_what_is_new_in_the_order_of_names(log, clicks, tmp_path, capsys):
    clicks(label("a", 10))
    for number, name in enumerate("abc", start=1):
        log(served(name, 10, at=OLD + number))
        assert set(added(tmp_path)) == set("abc"[:number])
        files = sorted(file.name for file in (tmp_path / "spool").iterdir())
        assert files == [f"{each:09}.parquet" for each in range(1, number + 1)]
    before = {file: file.read_bytes() for file in (tmp_path / "spool").iterdir()}
    capsys.readouterr()
    added(tmp_path)
    assert "nothing in the log is new: no file is added" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in (tmp_path / "spool").iterdir()}


def test_a_file_is_in_the_order_of_time_and_has_the_columns_that_were_served(log, clicks, tmp_path):
    rows = [served(f"{number}", 10, 20, at=OLD + number) for number in range(50)]
    random.Random(0).shuffle(rows)
    log(*rows[:20])
    log(*rows[20:])
    clicks(label("7", 20))
    added(tmp_path)
    found = pq.read_table(tmp_path / "spool").to_pylist()
    wanted = sorted(rows, key=lambda row: row["timestamp"])
    for row, as_served in zip(found, wanted, strict=True):
        labels = [0, int(as_served["request_id"] == "7")]
        assert row == {n: v for n, v in as_served.items() if n not in OF_SERVER} | {
            "labels": labels
        }


def test_a_data_set_is_split_at_one_moment(log, clicks, tmp_path):
    log(*[served(f"{number}", 10, 20, at=OLD + number // 2) for number in range(100)])
    clicks(label("7", 20), label("95", 10))
    main(flags(tmp_path, "--test_share", "0.3"))
    requests = tmp_path / "data" / "requests"
    train, test = (pq.read_table(requests / split)["timestamp"] for split in ("train", "test"))
    assert len(train) == 70 and len(test) == 30
    assert max(train.to_pylist()) < min(test.to_pylist())
    items = pq.read_table(tmp_path / "data" / "items")["item_id"].to_pylist()
    assert items == [1, 2, 10, 20]
    assert labels_in(requests)["95"] == [1, 0]


def test_labels_are_those_of_an_oracle_however_files_are_cut(log, clicks, tmp_path):
    rng = random.Random(1)
    rows = [
        served(f"{n}", *rng.sample(range(20), 4), at=OLD + rng.randrange(500)) for n in range(300)
    ]
    for at in range(0, 300, 60):
        log(*rows[at : at + 60])
    events = [
        click(f"{rng.randrange(320)}", rng.randrange(20), OLD + rng.randrange(4000))
        for _ in range(2000)
    ]
    clicks(*events)
    wanted = {
        row["request_id"]: [
            int(
                any(
                    e["request_id"] == row["request_id"]
                    and e["item_id"] == item
                    and e["timestamp"] - row["served_at"] <= WAIT_S
                    for e in events
                )
            )
            for item in row["candidate_item_ids"]
        ]
        for row in rows
    }
    assert added(tmp_path) == wanted


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([label("a", 10), label("a", 10, 0)], "label must be one for each request and item"),
        ([label("a", 10, 2)], "label must be 0 or 1, got 2"),
        ([label("x", 10)], "request_id must name requests of"),
        ([{"request_id": "a", "item_id": 10}], "must have a column timestamp"),
        ([label("a", 10) | {"timestamp": 1, "event": "click"}], "timestamp and event, got both"),
        ([{"item_id": 10, "label": 1}], "must have a column request_id"),
        ([label("a", 10), label("a", "x")], "could not be read|must be readable|int64"),
        ([label("a", 10), {"request_id": None, "item_id": 1, "label": 1}], "request_id is missing"),
    ],
)
def test_outcomes_that_could_be_taken_wrongly_are_refused_and_nothing_is_added(
    log, clicks, tmp_path, refused, outcomes, said
):
    log(served("a", 10))
    clicks(*outcomes)
    line = refused(main, flags(tmp_path, "--add", "true", run_dir="spool"))
    assert re.search(said, line), line
    assert not [*(tmp_path / "spool").glob("**/*")]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--events", "{cart: [add]}"], "events must name click alone"),
        (["--add", "true", "--test_share", "0.5"], "items and test_share do not apply with add"),
        (["--behaviours", "5"], "behaviours does not apply to source request_log"),
        (["--wait_s", "-1"], "wait_s must be at least 0"),
        (["--wait_s", "99999999"], "must hold files of requests older than wait_s"),
    ],
)
def test_flags_that_make_no_sense_are_refused(log, clicks, tmp_path, refused, more, said):
    log(served("a", 10))
    clicks(label("a", 10))
    assert said in refused(main, flags(tmp_path, *more))


def test_a_folder_of_other_requests_is_not_added_to(log, clicks, tmp_path, refused):
    log(served("a", 10))
    clicks(label("a", 10))
    (tmp_path / "spool").mkdir()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "spool" / "own.parquet")
    line = refused(main, flags(tmp_path, "--add", "true", run_dir="spool"))
    assert "must hold requests of a log alone" in line
