"""What was served is trained on: by a data set, or by who follows."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import apps.prepare
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import SmallMarket
from tests.online.following import follow, windows_of
from tests.serving.request_log.logging_server import logged, post, served
from tests.serving.served import predicted
from torchrec_mm.data.encode.source import known_columns
from torchrec_mm.scoring.trained_run import TrainedRun


def prepared(folder: Path, rows: dict[str, dict], name: str, *more: object) -> Path:
    """What becomes of the log in a folder where the last candidate of each request is clicked."""
    clicked = [
        {"request_id": name, "item_id": row["candidate_item_ids"][-1], "label": 1}
        for name, row in rows.items()
    ]
    (folder / "clicks").mkdir()
    lines = "".join(json.dumps(each) + "\n" for each in clicked)
    (folder / "clicks" / "all.jsonl").write_text(lines)
    flags = ["--source", "request_log", "--input", folder / "log", "--outcomes", folder / "clicks"]
    flags += ["--wait_s", "0", "--run_dir", folder / name, *more]
    apps.prepare.main([str(flag) for flag in flags])
    return folder / name


def test_what_was_served_is_learned_from_and_predicted_as_it_was_answered(
    market, run_dir, scorer, asked, tmp_path
):
    with served(run_dir, scorer, tmp_path / "log") as client:
        for row in range(len(asked)):
            post(client, asked.slice(row, 1))
    rows = {row["request_id"]: row for row in logged(tmp_path / "log")}
    data = prepared(tmp_path, rows, "data", "--items", market.data)
    found = 0
    for split in ("train", "test"):
        requests = data / "requests" / split
        scores = predicted(run_dir, requests, tmp_path / "scores.parquet")
        table = pq.read_table(requests)
        answered = [rows[name]["click_probabilities"] for name in table["request_id"].to_pylist()]
        assert scores == pytest.approx(sum(answered, []), abs=1e-6)
        assert all(labels[-1] == 1 for labels in table["labels"].to_pylist())
        found += len(table)
    assert found == len(rows) == len(asked)
    again = train_ranker(SmallMarket(data, market.vectors), tmp_path / "again", "id")
    new, old = (TrainedRun.open(path, "latest").vocabularies for path in (again, run_dir))
    assert known_columns(new).all.keys() == known_columns(old).all.keys()


def test_what_was_served_is_followed(run_dir, scorer, asked, tmp_path):
    with served(run_dir, scorer, tmp_path / "log") as client:
        post(client, asked)
    rows = {row["request_id"]: row for row in logged(tmp_path / "log")}
    spool = prepared(tmp_path, rows, "spool", "--add", "true")
    run = follow(spool, run_dir, tmp_path / "online")
    assert sum(window["requests"] for window in windows_of(run)) == len(asked)
