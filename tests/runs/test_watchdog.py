"""The watchdog; a real hang is in a process of its own, for it writes past pytest."""

import faulthandler
import sys

import pytest

from tests.helpers import forks
from torchrec_mm.runs import watchdog


def test_a_hang_prints_all_stacks_and_training_goes_on():
    code = """
import sys, threading
from torchrec_mm.runs.watchdog import Watchdog
def where_it_hangs(seconds):
    threading.Event().wait(seconds)
threading.Thread(target=where_it_hangs, args=(60,), daemon=True, name="other").start()
with Watchdog(0.2) as watchdog:
    for hang in (0.6, 0.6):
        where_it_hangs(hang)
        watchdog.alive()
    print("done", file=sys.stderr)
"""
    done = forks.run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    printed = done.stderr
    assert printed.count("Timeout") == 2
    assert printed.count("in where_it_hangs") == 4  # two threads, twice
    assert printed.strip().endswith("done")


@pytest.fixture
def timer(monkeypatch) -> list:
    """What faulthandler's timer is told, by a clock that ``timer.now`` sets."""
    calls: list = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda after, file: calls.append(after)
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append("off"))
    return calls


def alive_at(monkeypatch, timeout_s: float, *times: float) -> None:
    clock = iter(times)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(clock))
    with watchdog.Watchdog(timeout_s) as dog:
        for _ in times[1:]:
            dog.alive()


def test_the_timer_starts_again_with_steps_a_tenth_of_the_timeout_apart_or_more(timer, monkeypatch):
    alive_at(monkeypatch, 100, 0, 3, 9.5, 10, 10.5, 15, 60, 61)
    assert timer == [pytest.approx(110)] * 3 + ["off"]


def test_a_timeout_of_zero_watches_nothing(timer, monkeypatch):
    alive_at(monkeypatch, 0, 0, 3, 9.5)
    assert timer == []


def test_a_process_without_stderr_is_not_watched(timer, monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", None)
    alive_at(monkeypatch, 100, 0, 3)
    assert timer == ["off"]
