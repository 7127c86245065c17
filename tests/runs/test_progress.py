"""What is said of long work, with a terminal and without."""

import sys
from types import SimpleNamespace

import pytest

from torchrec_mm.runs import progress
from torchrec_mm.runs.progress import shown

FIRST, OTHER = SimpleNamespace(is_first=True), SimpleNamespace(is_first=False)


@pytest.fixture
def clock(monkeypatch):
    """Seconds go by as the work says."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def test_without_a_terminal_lines_say_how_far_it_is(clock, capsys):
    for _ in shown(range(5), "text: features", "part", FIRST):
        clock.seconds += 20
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("text: features: ") for line in lines] == [
        "0 of 5 parts, 0 s",
        "2 of 5 parts, 40 s",
        "4 of 5 parts, 80 s",
        "5 of 5 parts, 100 s",
    ]


@pytest.mark.parametrize(("work", "worker"), [([1, 2], OTHER), ([], FIRST)])
def test_other_ranks_and_no_work_say_nothing(capsys, work, worker):
    assert list(shown(work, "x", "part", worker)) == work
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(shown([1, 2], "x", "part", FIRST)) == [1, 2]
    assert "2/2" in capsys.readouterr().err
