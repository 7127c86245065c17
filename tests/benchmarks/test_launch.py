"""The benchmark of launching: what is launched, and when its first step counts as done."""

import sys

import pytest

from tests.helpers import forks
from torchrec_mm.benchmarks import launch
from torchrec_mm.benchmarks.launch import LaunchConfig, compare, first_step_s, is_step_done
from torchrec_mm.errors import InputError


def test_a_whole_line_of_a_step_ends_the_wait(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert not is_step_done(log)
    for text, is_done in (
        ('{"epoch": 0}\n', False),
        ('{"epoch": 0}\n{"step": 1, "loss"', False),
        ('{"epoch": 0}\n{"step": 1, "loss": 2}\n', True),
    ):
        log.write_text(text)
        assert is_step_done(log) == is_done


def fork(command: list[str], **options) -> forks.Fork:
    return forks.Fork(command, **options | {"stdout": forks.DEVNULL, "stderr": forks.DEVNULL})


def test_one_process_is_launched_and_timed(monkeypatch):
    alone = [sys.executable, "-m", "apps.train_ranker"]
    monkeypatch.setattr(launch, "Popen", fork)
    monkeypatch.setattr(launch, "launchers", lambda size: {"ours": alone, "baseline": alone})
    (line,) = compare(LaunchConfig(runs=1))
    assert line["benchmark"] == "launch" and line["unit"] == "s"
    assert line["ratio"] == line["baseline"] / line["ours"]
    assert line["ours"] > 0


def test_a_launch_that_fails_is_named(tmp_path):
    failing = [sys.executable, "-c", "exit(3)"]
    with pytest.raises(InputError, match="must train a step in 60 s, got 3"):
        first_step_s(failing, tmp_path, 60)
