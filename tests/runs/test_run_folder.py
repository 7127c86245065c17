"""The run folder: created once, resumed with the same config only."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from torchrec_mm.errors import InputError
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder, read_run


@dataclass(frozen=True)
class Config:
    """A command's flags."""

    data: Path | None = Path("market")
    encoded: Path | None = None
    plan: Path = Path("a")
    hidden: tuple[int, ...] = (4, 3)
    seed: int = 0
    checkpoint_steps: int = 0
    keep_checkpoints: int = 1
    resume: bool = False


def test_a_run_starts_with_its_config(worker, tmp_path):
    run = RunFolder.create(tmp_path / "run", Config(), worker, resume=False)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["hidden"] == [4, 3]
    assert run.checkpoints == tmp_path / "run" / "checkpoints"
    assert [path.name for path in run.config_files] == ["config.yaml"]
    for name in ("plan.json", "model.json", "metrics.jsonl"):
        (run.path / name).touch()
    assert {path.name for path in run.config_files} == {"config.yaml", "model.json", "plan.json"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_something_else_is_refused(resume, worker, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already: name a new folder or remove it first"):
        RunFolder.create(tmp_path, Config(), worker, resume)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_holds_a_run_is_refused_unless_resuming(worker, tmp_path):
    RunFolder.create(tmp_path, Config(), worker, resume=False)
    with pytest.raises(InputError, match="exists already"):
        RunFolder.create(tmp_path, Config(), worker, resume=False)
    RunFolder.create(tmp_path, Config(resume=True), worker, resume=True)
    assert "resume: false" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"seed must stay 0 to resume .*, got 1"),
        ({"hidden": (4,)}, r"hidden must stay \[4, 3\] to resume .*, got \[4\]"),
        ({"plan": Path("b")}, r"plan must stay '/.*/a' to resume .*, got '/.*/b'"),
    ],
)
def test_resuming_with_another_config_is_refused_by_field(change, words, worker, tmp_path):
    RunFolder.create(tmp_path, Config(), worker, resume=False)
    with pytest.raises(InputError, match=words):
        RunFolder.create(tmp_path, replace(Config(resume=True), **change), worker, resume=True)


def test_paths_are_absolute_and_another_spelling_is_the_same_path(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("run")
    RunFolder.create(run, Config(plan=Path("x/../a")), worker, resume=False)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["data"], config["plan"]) == (str(tmp_path / "market"), str(tmp_path / "a"))
    monkeypatch.chdir(run)
    RunFolder.create(tmp_path / "run", Config(plan=Path("../a")), worker, resume=True)


def test_inputs_may_have_moved_when_what_they_hold_is_the_same(worker, tmp_path):
    def start(model: dict, **config) -> dict:
        run = RunFolder.create(tmp_path / "run", Config(**config), worker, resume=True)
        run.write_model(model)
        return yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())

    same = {"vocabulary": "abc", "hidden": (4, 3)}
    first = start(same)
    with pytest.raises(InputError, match="vocabulary must stay 'abc' to resume .*, got 'def'"):
        start(same | {"vocabulary": "def"}, data=tmp_path / "other")
    assert start(same) == first
    moved = start(same, data=None, encoded=tmp_path / "there", checkpoint_steps=3)
    assert moved == first | {"data": None, "encoded": str(tmp_path / "there")}


def test_resuming_what_never_started_starts_it(worker, tmp_path):
    RunFolder.create(tmp_path / "run", Config(resume=True), worker, resume=True)
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_metrics_are_one_json_object_a_line(worker, tmp_path):
    run = RunFolder.create(tmp_path, Config(), worker, resume=False)
    run.log(step=1, loss=0.5)
    run.log(epoch=1, loss=0.4)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [{"step": 1, "loss": 0.5}, {"epoch": 1, "loss": 0.4}]


def test_a_run_is_read_by_the_kind_it_calls_itself(worker, tmp_path):
    with pytest.raises(InputError, match="must be the folder of a make run: no config.yaml and"):
        read_run(tmp_path, "make")
    run = RunFolder.create(tmp_path, Config(), worker, resume=False)
    run.write_model({"kind": "make", "vectors": "abc"})
    with pytest.raises(InputError, match="must be a ranker run, got a make run"):
        read_run(tmp_path, "ranker")
    config, model = read_run(tmp_path, "make")
    assert config["hidden"] == [4, 3]
    assert model == {"kind": "make", "vectors": "abc"}


@pytest.mark.parametrize(
    ("step", "epoch", "kept"), [(0, 0, 0), (1, 0, 2), (2, 0, 3), (2, 1, 4), (3, 1, 5)]
)
def test_lines_that_a_resumed_run_writes_again_are_forgotten(worker, tmp_path, step, epoch, kept):
    lines = ['{"epoch": 0}\n', '{"step": 1}\n', '{"step": 2}\n', '{"epoch": 1}\n', '{"step": 3}\n']
    lines.append('{"ste')
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    RunFolder(tmp_path, worker).drop_records_after(Position(step=step, epoch=epoch))
    left = (tmp_path / "metrics.jsonl").read_text()
    assert left == "".join(lines[:kept])


@pytest.mark.parametrize("change", [{"checkpoint_steps": 5}, {"keep_checkpoints": 3}])
def test_how_a_run_is_saved_may_change_when_it_resumes(change, worker, tmp_path):
    RunFolder.create(tmp_path, Config(), worker, resume=False)
    RunFolder.create(tmp_path, replace(Config(resume=True), **change), worker, resume=True)


def test_a_run_logs_while_it_lasts(worker, tmp_path):
    with pytest.raises(InputError), RunFolder.create(tmp_path, Config(), worker, resume=False):
        raise InputError("seed must be\nlucky, got 13")
    first, last = (tmp_path / "logs" / "rank-00000.log").read_text().splitlines()
    assert "started as rank 0 of 1" in first
    assert last.endswith("error: seed must be lucky, got 13")
