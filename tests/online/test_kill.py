"""A follower killed at random moments leaves a scorer with the bits of one that nobody killed.

TORCHREC_MM_KILLS is the number of kills, 10 at most: each is a trainer that starts.
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.forks import PATIENCE_S, Fork, wait_until
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import SmallMarket, write_small_market
from tests.online.following import (
    WINDOW_S,
    counted,
    current_of,
    deltas_of,
    follow,
    follow_flags,
    put_all,
    requests_of,
    same_bits,
    state_of,
    steps_of,
    weights_of,
    windows_of,
)
from torchrec_mm.serving.current import Current, Following

KILLS = min(10, int(os.environ.get("TORCHREC_MM_KILLS", "2")))
WINDOWS_PER_KILL = 4
WINDOWS = WINDOWS_PER_KILL * (KILLS + 1)
RAW_IDS = ("--zero_collision", "{user_id: {rows: 16, interval_steps: 2, partitions: 2}}")

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def long_market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"), test=WINDOWS * WINDOW_S)


class Watched(Current):
    """Notes which deltas it took, in order."""

    def __init__(self, *how) -> None:
        self.taken: list[int] = []
        super().__init__(*how)

    def _show(self, file: Path) -> None:
        super()._show(file)
        if file.suffix == ".safetensors":
            self.taken.append(self.scorer.delta)


@pytest.mark.slow
def test_killed_again_and_again_it_publishes_what_it_would_have(long_market, tmp_path):
    chance = random.Random(3)
    start = train_ranker(long_market, tmp_path / "start", "simtier", *RAW_IDS)
    spool, run_dir = tmp_path / "spool", tmp_path / "killed"
    put_all(spool, requests_of(long_market))
    whole = follow(spool, start, tmp_path / "whole")
    base = steps_of(whole)[0]
    (tmp_path / "nothing").mkdir()
    follow(tmp_path / "nothing", start, run_dir)  # so that there is something to serve
    current = current_of(run_dir, Watched)
    with Following(current, 0.001):
        for number in range(KILLS):
            fork = started(spool, start, run_dir)
            target = base + WINDOWS_PER_KILL * number + chance.randrange(1, WINDOWS_PER_KILL)
            wait_until(lambda target=target: steps_of_now(run_dir)[-1] >= target, fork)
            if number % 2 == 0:  # else in scoring or learning
                wait_until(lambda: any((run_dir / "checkpoints").glob(".step-*")), fork)
            else:
                threading.Event().wait(chance.random() / 20)  # anywhere in a window or two
            fork.kill()
            assert fork.wait(PATIENCE_S) == -signal.SIGKILL
        last = started(spool, start, run_dir)
        assert last.wait(PATIENCE_S) == 0
        wait_until(lambda: current.scorer.delta == WINDOWS)
    assert counted(current, "failed") == 0
    assert current.taken == [*range(1, WINDOWS + 1)]
    assert same_bits(weights_of(current.scorer), weights_of(current_of(whole).scorer))
    assert same_bits(state_of(run_dir), state_of(whole))
    assert deltas_of(run_dir) == deltas_of(whole)
    assert windows_of(run_dir) == windows_of(whole)


def started(spool: Path, start: Path, run_dir: Path) -> Fork:
    flags = follow_flags(spool, start, run_dir)
    log = run_dir.with_suffix(".log")
    return Fork([sys.executable, "-m", "apps.train_ranker", *flags], stdout=log, stderr=log)


def steps_of_now(run_dir: Path) -> list[int]:
    """While somebody else writes and removes."""
    return sorted(int(f.name.rpartition("-")[2]) for f in (run_dir / "checkpoints").glob("step-*"))
