"""apps.train_ranker --follow: windows are judged, learned from once, and saved where they end."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import apps.evaluate
from tests.helpers.forks import PATIENCE_S, Fork, wait_until
from tests.helpers.runs import train_make, train_ranker
from tests.helpers.small_market import NEVER_SHOWN, UNKNOWN_BEHAVIOURS, write_parquet
from tests.online.following import (
    START,
    WINDOW_S,
    deltas_of,
    follow,
    follow_flags,
    put,
    put_all,
    requests_of,
    same_bits,
    set_aside,
    state_of,
    windows_of,
)
from torchrec_mm.data.encoded.vocabulary import UNSEEN
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.delta import read_delta

pytestmark = pytest.mark.slow

METHODS = ("id", "simtier+make")
RAW_IDS = ("--zero_collision", "{user_id: {rows: 16, interval_steps: 2, partitions: 2}}")


@pytest.fixture(scope="module")
def start(market, tmp_path_factory) -> Path:
    """By method, runs to go on from."""
    folder = tmp_path_factory.mktemp("start")
    make = train_make(market, folder / "train_make")
    for method in METHODS:
        train_ranker(market, folder / method, method, make=make)
    train_ranker(market, folder / "raw_ids", "id", *RAW_IDS)
    return folder


@pytest.fixture(scope="module")
def followed(market, start, tmp_path_factory) -> Path:
    """By method, runs that followed all that arrived."""
    folder = tmp_path_factory.mktemp("followed")
    put_all(folder / "spool", requests_of(market))
    for method in (*METHODS, "raw_ids"):
        follow(folder / "spool", start / method, folder / method)
    return folder


@pytest.mark.parametrize("method", [*METHODS, "raw_ids"])
def test_a_window_is_judged_by_what_was_learned_before_it(method, market, followed, tmp_path):
    run_dir = followed / method
    before = [checkpoint.position.step for checkpoint in list_checkpoints(run_dir / "checkpoints")]
    lines = windows_of(run_dir)
    assert len(lines) == len(requests_of(market)) // WINDOW_S == len(before) - 1
    for number, line in enumerate(lines):
        if number % 2:
            continue  # each takes a second
        data = tmp_path / str(number)
        shutil.copytree(market.data / "items", data / "items")
        arrived = requests_of(market, number * WINDOW_S, (number + 1) * WINDOW_S)
        write_parquet(data / "requests" / "test", arrived.to_pydict())
        flags = ["--data", data, "--run_dir", run_dir, "--checkpoint", before[number]]
        apps.evaluate.main([str(flag) for flag in flags])
        said = json.loads((run_dir / "metrics.json").read_text())
        for name in ("auc", "gauc", "log_loss", "impressions"):
            assert line[name] == pytest.approx(said[name], abs=1e-5), name
        assert line["window"] == START + number * WINDOW_S


def test_a_window_learns_what_training_on_the_same_batches_would(market, start, tmp_path):
    # One window, one batch: the next step of the run, were it to go on.
    put(tmp_path / "spool", "all.parquet", requests_of(market))
    more = ("--window_s", "86400", "--batch_requests", "1000")
    run_dir = follow(tmp_path / "spool", start / "id", tmp_path / "run", *more)
    (line,) = windows_of(run_dir)
    before, after = list_checkpoints(run_dir / "checkpoints")
    assert after.position.step == before.position.step + 1
    assert line["train_loss"] == pytest.approx(line["log_loss"], abs=1e-6)  # users' effects too


def test_users_effects_stay_as_they_were_fitted(start, followed):
    (key,) = (name for name in state_of(start / "id") if name.endswith("effects_table.weight"))
    before, after = state_of(start / "id"), state_of(followed / "id")
    assert before[key].any() and same_bits({key: before[key]}, {key: after[key]})


@pytest.mark.parametrize("method", [*METHODS, "raw_ids"])
def test_it_goes_on_where_it_was_left_bit_for_bit(method, market, start, followed, tmp_path):
    spool, run_dir, whole = tmp_path / "spool", tmp_path / "run", followed / method
    count = len(requests_of(market))
    for first in range(0, count, 2 * WINDOW_S):  # ends where windows do
        end = min(first + 2 * WINDOW_S, count)
        put(spool, f"{first:05d}.parquet", requests_of(market, first, end))
        follow(spool, start / method, run_dir)
    assert same_bits(state_of(run_dir), state_of(whole))
    assert windows_of(run_dir) == windows_of(whole)
    assert deltas_of(run_dir) == deltas_of(whole)


def test_following_nothing_new_changes_nothing(market, start, followed):
    def content() -> dict[str, bytes]:
        return {
            str(file.relative_to(followed)): file.read_bytes()
            for kind in ("checkpoints", "deltas")
            for file in (followed / "id" / kind).rglob("*")
            if file.is_file()
        }

    before, lines = content(), windows_of(followed / "id")
    follow(followed / "spool", start / "id", followed / "id")
    assert content() == before
    assert windows_of(followed / "id") == lines


def test_bad_files_are_set_aside_by_name_and_nothing_else_is_lost(
    market, start, followed, tmp_path
):
    spool, table = tmp_path / "spool", requests_of(market)
    put_all(spool, table)
    (spool / "00000.jsonl").write_text("{}")
    (spool / "00001.parquet").write_bytes(b"PAR1 and no more")
    (spool / "00002").mkdir()
    (spool / ".00003.parquet").write_bytes(b"still on its way")
    put(spool, "00004.parquet", table.drop_columns(["labels"]))
    none = pa.nulls(len(table), pa.int64())
    put(spool, "00005.parquet", table.drop_columns(["timestamp"]).append_column("timestamp", none))
    torn = (spool / "00007.parquet").read_bytes()
    (spool / "00006.parquet").write_bytes(torn[: len(torn) // 2])
    put(spool, "00008.parquet", table.drop_columns(["city"]))
    run_dir = follow(spool, start / "id", tmp_path / "run")
    found = set_aside(run_dir)
    assert [*found] == [
        *("00000.jsonl", "00001.parquet", "00002", "00004.parquet"),
        *("00005.parquet", "00006.parquet", "00008.parquet"),
    ]
    assert "convert it" in found["00000.jsonl"]
    assert "must have a column labels" in found["00004.parquet"]
    assert "timestamp" in found["00005.parquet"]
    assert "must have a column city" in found["00008.parquet"]
    assert (spool / "00001.parquet").exists()
    assert same_bits(state_of(run_dir), state_of(followed / "id"))


def test_it_waits_for_files_and_ends_when_told_to(market, start, followed, tmp_path):
    spool, run_dir = tmp_path / "spool", tmp_path / "run"
    spool.mkdir()
    flags = [*follow_flags(spool, start / "id", run_dir), "--once", "false"]
    said = tmp_path / "said"
    fork = Fork([sys.executable, "-m", "apps.train_ranker", *flags], stderr=said)
    checkpoints = run_dir / "checkpoints"
    wait_until(lambda: any(checkpoints.glob("step-*")), fork)
    for number in range(2):  # a file, and what is over when the next one has come
        first = 2 * WINDOW_S * number
        table = requests_of(market, first, first + 2 * WINDOW_S)
        put(spool, f"{number}.parquet", table)
        count = len([*checkpoints.glob("step-*")])
        wait_until(lambda count=count: len([*checkpoints.glob("step-*")]) > count, fork)
    wait_until(lambda: len([*checkpoints.glob("step-*")]) == 4, fork)
    fork.terminate()
    assert fork.wait(PATIENCE_S) == 143
    step = list_checkpoints(checkpoints)[-1].position.step
    assert f"stopped by SIGTERM after step {step}; --resume goes on from there" in said.read_text()
    put(spool, "2.parquet", requests_of(market, 4 * WINDOW_S))
    follow(spool, start / "id", run_dir)
    assert same_bits(state_of(run_dir), state_of(followed / "id"))


def test_late_requests_and_duplicates_are_counted_and_the_latter_left_out(
    market, start, followed, tmp_path
):
    spool, table = tmp_path / "spool", requests_of(market)
    put(spool, "0.parquet", table.slice(0, 12))
    put(spool, "1.parquet", table.slice(7, 8))  # five again, three new
    run_dir = follow(spool, start / "id", tmp_path / "run")
    assert [line["duplicates"] for line in windows_of(run_dir)] == [0, 0, 5]
    assert [line["late"] for line in windows_of(run_dir)] == [0, 0, 0]
    assert [line["requests"] for line in windows_of(run_dir)] == [5, 5, 5]
    plain = tmp_path / "plain"
    put(plain, "0.parquet", table.slice(0, 15))
    other = follow(plain, start / "id", tmp_path / "other")
    assert same_bits(state_of(run_dir), state_of(other))

    late = [table.slice(20, 1), table.slice(15, 2), table.slice(3, 1)]
    put(spool, "2.parquet", pa.concat_tables(late))  # the last came before the stop
    follow(spool, start / "id", run_dir)
    *_, last = windows_of(run_dir)
    assert (last["window"], last["requests"]) == (START + 20, 3)
    assert (last["late"], last["duplicates"]) == (2, 1)


def test_ids_that_training_never_showed_learn_in_the_row_they_share(market, start, followed):
    key = "item_id_tables.embedding_bags.item_id_table.weight"
    touched = [
        {*read_delta(followed / "id" / "deltas", number).rows[key][0].tolist()}
        for number in range(1, 6)
    ]
    for window, rows in enumerate(touched):
        arrived = requests_of(market, WINDOW_S * window, WINDOW_S * (window + 1)).to_pydict()
        lists = [*arrived["candidate_item_ids"], *arrived["behaviour_item_ids"]]
        is_new = any(NEVER_SHOWN in each or {*UNKNOWN_BEHAVIOURS} & {*each} for each in lists)
        assert (UNSEEN in rows) == is_new
    assert any(UNSEEN in rows for rows in touched)
