"""What scorers get: deltas that add up to the checkpoint, small, the same again, behind a gate."""

import json
from pathlib import Path

import pytest

from tests.helpers.runs import train_ranker
from tests.online.following import (
    current_of,
    deltas_of,
    follow,
    put_all,
    requests_of,
    same_bits,
    scorer_of,
    weights_of,
    windows_of,
)
from torchrec_mm.config import run
from torchrec_mm.online import learner
from torchrec_mm.online.publish import publish
from torchrec_mm.runs.checkpoint_folders import find_checkpoint, list_checkpoints
from torchrec_mm.runs.delta import read_delta
from torchrec_mm.scoring.trained_run import TrainedRun

MANY = "{user_id: {rows: 65536}, item_id: {rows: 65536}}"


@pytest.fixture(scope="module")
def start(market, tmp_path_factory) -> Path:
    return train_ranker(
        market, tmp_path_factory.mktemp("start") / "run", "simtier", "--zero_collision", MANY
    )


@pytest.fixture(scope="module")
def spool(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spool")
    put_all(folder, requests_of(market, 0, 15))
    return folder


@pytest.fixture(scope="module")
def followed(start, spool, tmp_path_factory) -> Path:
    return follow(spool, start, tmp_path_factory.mktemp("followed") / "run")


def test_a_delta_is_as_small_as_what_a_window_touched(followed, market):
    for number in (1, 2, 3):
        delta = read_delta(followed / "deltas", number)
        arrived = requests_of(market, 5 * number - 5, 5 * number).to_pydict()
        users = {*arrived["user_id"]}
        touched = [rows for key, (rows, _) in delta.rows.items() if "user_id_table.weight" in key]
        assert len(touched[0]) <= len(users) + 16  # rows of those who own none, one a partition
        size = (followed / "deltas" / f"delta-{number:08d}.safetensors").stat().st_size
        tables = 65536 * 4 * 4  # bytes of weights, of one of two
        assert size < tables / 10


def test_deltas_lead_to_the_bits_of_the_checkpoint(start, spool, followed, tmp_path):
    base = find_checkpoint(followed / "checkpoints", str(steps_of(followed)[0])).folder
    trained = TrainedRun.open(followed, "latest")
    scorer = scorer_of(TrainedRun(trained.path, trained.config, trained.model, base))
    assert scorer.delta == 0
    for number in (1, 2, 3):
        delta = read_delta(followed / "deltas", number)
        scorer.check(delta)
        scorer = scorer.changed(delta)
        whole = find_checkpoint(followed / "checkpoints", str(delta.header.step)).folder
        other = scorer_of(TrainedRun(trained.path, trained.config, trained.model, whole))
        assert same_bits(weights_of(scorer), weights_of(other))
        assert scorer.checkpoint == whole and other.delta == number


def steps_of(run_dir: Path) -> list[int]:
    return [each.position.step for each in list_checkpoints(run_dir / "checkpoints")]


def test_a_delta_that_a_crash_kept_from_being_written_is_written_the_same(
    start, spool, followed, tmp_path, monkeypatch
):
    class Crash(BaseException):
        pass

    def crash(run_dir: Path) -> None:
        if len(deltas_of(run_dir)) == 1:  # the second has its checkpoint, and no file
            raise Crash
        publish(run_dir)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "publish", crash)
        with pytest.raises(Crash):
            follow(spool, start, tmp_path / "run")
    assert len(steps_of(tmp_path / "run")) == 3
    follow(spool, start, tmp_path / "run")
    assert deltas_of(tmp_path / "run") == deltas_of(followed)
    assert steps_of(tmp_path / "run") == steps_of(followed)


def test_a_window_below_the_gate_is_kept_from_scorers_and_comes_with_the_next(
    start, spool, followed, tmp_path
):
    run_dir = tmp_path / "run"
    follow(spool, start, run_dir, "--least_gauc", "1.0")
    lines = windows_of(run_dir)
    assert all(line["withheld"].startswith("gauc must be at least 1.0, got 0.") for line in lines)
    assert [line["delta"] for line in lines] == [0, 0, 0]
    assert deltas_of(run_dir) == {}
    base, *others = list_checkpoints(run_dir / "checkpoints")
    assert base.is_published and not any(each.is_published for each in others)
    current = current_of(run_dir)  # a server that starts now
    assert current.checkpoint == base.folder.name and not current.take_newest()
    assert learned_the_same(run_dir, followed)

    later = tmp_path / "later"
    put_all(later, requests_of_table(spool))
    put_next(later)
    follow(later, start, run_dir, "--least_gauc", "null")
    assert [line["delta"] for line in windows_of(run_dir)] == [0, 0, 0, 1]
    assert read_delta(run_dir / "deltas", 1).header.base_step == base.position.step
    assert current.take_newest()
    assert same_bits(weights_of(current.scorer), weights_of(current_of(run_dir).scorer))


def learned_the_same(run_dir: Path, other: Path) -> bool:
    own, theirs = (windows_of(each) for each in (run_dir, other))
    return [line["log_loss"] for line in own] == [line["log_loss"] for line in theirs]


def requests_of_table(spool: Path):
    import pyarrow.parquet as pq

    return pq.read_table(spool)


def put_next(spool: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.online.following import put

    table = pq.read_table(spool).slice(10, 5)
    times = pa.array([time + 100 for time in table["timestamp"].to_pylist()], pa.int64())
    put(
        spool,
        "next.parquet",
        table.set_column(table.column_names.index("timestamp"), "timestamp", times),
    )


@pytest.mark.parametrize("most", ["1.0001", "100"])
def test_a_window_whose_predictions_are_off_is_kept_from_scorers(most, start, spool, tmp_path):
    follow(spool, start, tmp_path / "run", "--most_miscalibration", most)
    for line in windows_of(tmp_path / "run"):
        bound = float(most)
        is_off = not 1 / bound <= line["calibration"] <= bound
        assert (line["withheld"] is not None) == is_off
        assert not is_off or "calibration must be in [" in line["withheld"]
    assert {line["withheld"] is None for line in windows_of(tmp_path / "run")} == {most == "100"}


def test_the_last_two_published_checkpoints_stay_whatever_came_after_them(start, spool, tmp_path):
    run_dir = tmp_path / "run"
    more = ("--keep_checkpoints", "1")
    follow(spool, start, run_dir, *more)
    assert len(steps_of(run_dir)) == 2
    put = requests_of_table(spool)
    later = tmp_path / "later"
    put_all(later, put)
    put_next(later)
    follow(later, start, run_dir, *more, "--least_gauc", "1")
    found = list_checkpoints(run_dir / "checkpoints")
    assert [each.is_published for each in found] == [True, True, False]


@pytest.mark.parametrize("flags", [["--least_gauc", "1.5"], ["--most_miscalibration", "0.5"]])
def test_bounds_that_nothing_can_meet_are_refused(flags, start, spool, tmp_path):
    import apps.train_ranker
    from tests.online.following import follow_flags

    assert run(apps.train_ranker.main, follow_flags(spool, start, tmp_path / "run", *flags)) == 2
    assert not (tmp_path / "run").exists()


def test_metrics_are_lines_of_json(followed):
    lines = (followed / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)
