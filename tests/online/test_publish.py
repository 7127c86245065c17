"""What scorers get: deltas that add up to the checkpoint, small, the same again, behind a gate."""

import shutil
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import apps.train_ranker
from tests.apps.serving.processes import served
from tests.helpers.runs import train_ranker
from tests.online.following import (
    WINDOW_S,
    current_of,
    deltas_of,
    follow,
    follow_flags,
    later,
    put,
    put_all,
    requests_of,
    same_bits,
    scorer_at,
    steps_of,
    weights_of,
    windows_of,
)
from torchrec_mm.online import learner
from torchrec_mm.online.publish import publish
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.delta import path_of, read_delta

ROWS, PARTITIONS = 65536, 16
MANY = f"{{user_id: {{rows: {ROWS}}}, item_id: {{rows: {ROWS}}}}}"
WINDOWS = 3


@pytest.fixture(scope="module")
def start(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "run"
    return train_ranker(market, folder, "simtier", "--zero_collision", MANY)


@pytest.fixture(scope="module")
def spool(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spool")
    put_all(folder, requests_of(market, 0, WINDOWS * WINDOW_S))
    return folder


@pytest.fixture(scope="module")
def followed(start, spool, tmp_path_factory) -> Path:
    return follow(spool, start, tmp_path_factory.mktemp("followed") / "run")


@pytest.mark.parametrize("number", range(1, WINDOWS + 1))
def test_a_delta_is_as_small_as_what_a_window_touched(number, followed, market):
    delta = read_delta(followed / "deltas", number)
    arrived = requests_of(market, WINDOW_S * (number - 1), WINDOW_S * number).to_pydict()
    (touched,) = (len(rows) for key, (rows, _) in delta.rows.items() if "user_id_table.w" in key)
    assert 0 < touched <= len({*arrived["user_id"]}) + PARTITIONS  # those of who owns none
    assert path_of(followed / "deltas", number).stat().st_size < ROWS  # of 2 x 2.5 MB of tables


def test_deltas_lead_to_the_bits_of_the_checkpoint(followed):
    first, *steps = steps_of(followed)
    scorer = scorer_at(followed, first)
    assert scorer.delta == 0
    for number, step in enumerate(steps, start=1):
        delta = read_delta(followed / "deltas", number)
        scorer.check(delta)
        scorer = scorer.changed(delta)
        whole = scorer_at(followed, step)
        assert same_bits(weights_of(scorer), weights_of(whole))
        assert (scorer.checkpoint, scorer.delta) == (whole.checkpoint, whole.delta)


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
    assert (len(steps_of(tmp_path / "run")), len(deltas_of(tmp_path / "run"))) == (3, 1)
    follow(spool, start, tmp_path / "run")
    assert deltas_of(tmp_path / "run") == deltas_of(followed)
    assert steps_of(tmp_path / "run") == steps_of(followed)


@pytest.mark.slow
def test_a_window_behind_the_gate_is_kept_from_scorers_and_comes_with_the_next(
    start, spool, followed, tmp_path
):
    run_dir = tmp_path / "run"
    follow(spool, start, run_dir, "--most_miscalibration", "1")  # no window is so good
    lines = windows_of(run_dir)
    assert all("calibration must be in [1, 1], got" in line["withheld"] for line in lines)
    assert [line["delta"] for line in lines] == [0, 0, 0] and not deltas_of(run_dir)
    base, *others = list_checkpoints(run_dir / "checkpoints")
    assert base.is_published and not any(each.is_published for each in others)
    with served(run_dir) as (_, where):  # a server that starts now
        assert httpx.get(f"{where}/ready").json()["checkpoint"] == base.folder.name
    current = current_of(run_dir)
    assert current.checkpoint == base.folder.name and not current.take_newest()
    losses = [[line["log_loss"] for line in windows_of(each)] for each in (run_dir, followed)]
    assert losses[0] == losses[1]  # it is learned from all the same

    put(tmp_path / "next", "next.parquet", later(pq.read_table(spool).slice(10, 5), 100))
    follow(tmp_path / "next", start, run_dir, "--most_miscalibration", "null")
    assert [line["delta"] for line in windows_of(run_dir)] == [0, 0, 0, 1]
    assert read_delta(run_dir / "deltas", 1).header.base_step == base.position.step
    assert current.take_newest()
    whole = scorer_at(run_dir, steps_of(run_dir)[-1])
    assert same_bits(weights_of(current.scorer), weights_of(whole))


def test_the_gate_is_shut_by_each_bound_and_by_what_is_not_defined(
    start, spool, followed, tmp_path
):
    lines = windows_of(followed)
    bound = sorted(line["gauc"] for line in lines)[1]
    off = sorted(max(line["calibration"], 1 / line["calibration"]) for line in lines)[1]
    flags = ("--least_gauc", str(bound), "--most_miscalibration", str(off))
    for line in windows_of(follow(spool, start, tmp_path / "run", *flags)):
        is_low = line["gauc"] < bound
        is_off = not 1 / off <= line["calibration"] <= off
        assert (line["withheld"] is not None) == (is_low or is_off)
    put(tmp_path / "clicks", "0.parquet", clicked(spool))
    (line,) = windows_of(follow(tmp_path / "clicks", start, tmp_path / "clicked", *flags))
    assert line["gauc"] is None and line["withheld"] == f"gauc must be at least {bound}, got None"


def clicked(spool: Path) -> pa.Table:
    """A request all of whose candidates were clicked."""
    table = pq.read_table(spool).slice(0, 1)
    at, kind = table.column_names.index("labels"), table.schema.field("labels").type
    labels = [[1] * len(each) for each in table["labels"].to_pylist()]
    return table.set_column(at, "labels", pa.array(labels, kind))


@pytest.mark.parametrize("left", [(), ("model.json",), ("model.json", "vocabularies.safetensors")])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    left, start, spool, followed, tmp_path
):
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / ".step-00000004").mkdir(parents=True)
    config = (followed / "config.yaml").read_text().replace(str(followed), str(run_dir))
    (run_dir / "config.yaml").write_text(config)
    for name in left:
        shutil.copy(followed / name, run_dir / name)
    follow(spool, start, run_dir)
    assert deltas_of(run_dir) == deltas_of(followed)


def test_two_published_checkpoints_stay_whatever_came_after_them(start, spool, tmp_path):
    run_dir, more = tmp_path / "run", ("--keep_checkpoints", "1")
    follow(spool, start, run_dir, *more)
    assert len(steps_of(run_dir)) == 2
    for turn in (1, 2):
        name = f"{turn}.parquet"
        put(tmp_path / "next", name, later(pq.read_table(spool).slice(10, 5), 100 * turn))
    follow(tmp_path / "next", start, run_dir, *more, "--most_miscalibration", "1")
    found = list_checkpoints(run_dir / "checkpoints")
    assert [each.is_published for each in found] == [True, True, False]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--least_gauc", "1.5"], "least_gauc must be in [0, 1], got 1.5"),
        (["--most_miscalibration", "0.5"], "most_miscalibration must be at least 1, got 0.5"),
        (["--window_s", "0"], "window_s must be at least 1, got 0"),
        (["--method", "simtier+make"], "method must stay 'simtier' to resume"),
        (["--embedding_dim", "8"], "embedding_dim must stay 4 to resume"),
        (["--min_count", "3"], "min_count must stay 2 to resume"),
        (["--checkpoint_steps", "2"], "checkpoint_steps must be 0 with follow"),
        (["--test_auc", "true"], "test_auc must be false with follow"),
        (["--vector_storage", "sharded"], "vector_storage must be mapped with follow"),
        (["--start_from", "nowhere"], "nowhere must be the folder of a ranker run"),
        (["--follow", "nowhere"], "follow must be a folder of requests, got nowhere"),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused(flags, said, start, spool, tmp_path, refused):
    run_dir = tmp_path / "run"
    assert said in refused(apps.train_ranker.main, follow_flags(spool, start, run_dir, *flags))
    assert not run_dir.exists()


def test_the_config_that_is_shown_is_that_of_the_run_before_and_of_what_was_given(
    start, spool, tmp_path, capsys
):
    more = tmp_path / "more.yaml"
    more.write_text("learning_rate: 0.5\nwindow_s: 7\n")
    flags = [*follow_flags(spool, start, tmp_path / "run"), "--config", str(more)]
    with pytest.raises(SystemExit):
        apps.train_ranker.main([*flags, "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["method"], shown["embedding_dim"]) == ("simtier", 4)
    assert (shown["learning_rate"], shown["window_s"]) == (0.5, WINDOW_S)  # the latter is a flag
    assert (shown["resume"], shown["follow"]) == (True, str(spool))


def test_what_arrives_is_learned_from_more_slowly_unless_rates_are_given(
    start, followed, spool, tmp_path, capsys
):
    def shown(run: Path, *more: str) -> tuple[float, float]:
        with pytest.raises(SystemExit):
            flags = follow_flags(spool, run, tmp_path / "run", *more)
            apps.train_ranker.main([*flags, "--print_config"])
        said = yaml.safe_load(capsys.readouterr().out)
        return said["learning_rate"], said["table_learning_rate"]

    rate, table_rate = (
        yaml.safe_load((start / "config.yaml").read_text())[name]
        for name in ("learning_rate", "table_learning_rate")
    )
    slower = (pytest.approx(rate / 4), pytest.approx(table_rate / 10))
    assert shown(start) == slower
    assert shown(followed) == slower  # which was slower already
    assert shown(start, "--learning_rate", "0.5") == (0.5, slower[1])


def test_a_run_goes_on_by_its_own_config(followed, tmp_path):
    before = deltas_of(followed)
    apps.train_ranker.main(["--config", str(followed / "config.yaml"), "--resume"])
    assert deltas_of(followed) == before


def test_flags_of_following_go_with_follow_alone(market, tmp_path, refused):
    flags = [*market.flags, "--run_dir", tmp_path / "run"]
    for flag, value in (("once", "true"), ("window_s", "5"), ("start_from", "x"), ("items", "x")):
        line = refused(apps.train_ranker.main, [*flags, f"--{flag}", value])
        assert f"{flag} must not be given without follow" in line
    line = refused(apps.train_ranker.main, ["--follow", tmp_path, "--run_dir", tmp_path / "run"])
    assert "start_from must be given with follow" in line


def test_a_run_that_does_not_learn_in_steps_is_refused(market, spool, tmp_path, refused):
    bias = train_ranker(market, tmp_path / "bias", "bias")
    line = refused(apps.train_ranker.main, follow_flags(spool, bias, tmp_path / "run"))
    assert "start_from must be a run of a method that learns in steps, got method bias" in line
