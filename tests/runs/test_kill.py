"""A run whose ranks are killed at random moments, during saves too, is the run that never was.

TORCHREC_MM_KILLS is the number of kills in each test. As a module of its own this is what a rank
runs: ``python -m tests.runs.test_kill FLAGS`` trains with a line in the log for every step.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.forks import DEVNULL, PATIENCE_S, TORCHRUN, Fork, children_of
from tests.helpers.runs import evaluate, lines_of, ranker_flags
from tests.helpers.small_market import SmallMarket, write_small_market
from torchrec_mm.train import fit

KILLS = int(os.environ.get("TORCHREC_MM_KILLS", "2"))
STEPS_PER_KILL = 8
EPOCHS = 2
BATCH = 16
TRAIN_REQUESTS = BATCH * STEPS_PER_KILL * (KILLS + 1) // EPOCHS
# Sums of floats in another order, over the steps of the default number of kills and of 20.
LOSS_TOLERANCE = 1e-4

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU"),
]


class Launch:
    """Training of one run on some ranks."""

    def __init__(self, market: SmallMarket, run_dir: Path, world_size: int) -> None:
        self.run_dir = run_dir
        flags = [*ranker_flags(market, run_dir, "simtier"), "--epochs", str(EPOCHS)]
        flags += ["--test_auc", "true", "--checkpoint_steps", "2", "--resume", "true"]
        ranks = [f"--nproc_per_node={world_size}", "-m", "tests.runs.test_kill"]
        self.errors = run_dir.with_suffix(".err")
        self.errors.write_text("")
        self.process = Fork([*TORCHRUN, *ranks, *flags], stdout=DEVNULL, stderr=self.errors)

    def ranks(self) -> list[int]:
        """Process ids of the ranks."""
        return children_of(self.process.pid)

    def wait_until(self, happens: Callable[[], bool]) -> None:
        """Look again and again; fail when training ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not happens():
            assert self.process.poll() is None, self.complaint()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def finish(self) -> None:
        assert self.process.wait(PATIENCE_S) == 0, self.complaint()

    def kill(self, chance: random.Random) -> None:
        """End one rank the hard way; the launcher then ends the others."""
        os.kill(chance.choice(self.ranks()), signal.SIGKILL)
        assert self.process.wait(PATIENCE_S) != 0

    def complaint(self) -> str:
        return self.errors.read_text()


def last_step(run_dir: Path) -> int:
    """The last step in the log, whose last line may be half written."""
    steps = [0]
    log = run_dir / "metrics.jsonl"
    for line in log.read_text().splitlines() if log.is_file() else []:
        try:
            steps.append(json.loads(line).get("step", 0))
        except json.JSONDecodeError:
            continue
    return max(steps)


def saving(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob(".step-*"))


def killed_again_and_again(
    market: SmallMarket, run_dir: Path, world_sizes: list[int], chance: random.Random
) -> None:
    """Train, with KILLS kills, on each number of ranks in turn; every other kill is in a save."""
    for number in range(KILLS):
        target = STEPS_PER_KILL * number + chance.randrange(1, STEPS_PER_KILL)
        launch = Launch(market, run_dir, world_sizes[number % len(world_sizes)])
        launch.wait_until(lambda target=target: last_step(run_dir) >= target)
        if number % 2 == 0:
            launch.wait_until(lambda: saving(run_dir))
        launch.kill(chance)
    Launch(market, run_dir, world_sizes[KILLS % len(world_sizes)]).finish()


def epochs_of(run_dir: Path) -> list[dict]:
    """Epoch lines but for their speed."""
    lines = lines_of(run_dir, "epoch")
    return [{k: v for k, v in line.items() if k != "impressions_per_s"} for line in lines]


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"), train=TRAIN_REQUESTS)


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory) -> Path:
    """A run on two ranks that nobody killed."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    Launch(market, run_dir, 2).finish()
    return run_dir


def test_killed_on_as_many_ranks_it_ends_with_the_same_bits(market, whole, tmp_path):
    run_dir = tmp_path / "killed"
    killed_again_and_again(market, run_dir, [2], random.Random(1))
    assert len(lines_of(run_dir, "step")) == STEPS_PER_KILL * (KILLS + 1)
    assert lines_of(run_dir, "step") == lines_of(whole, "step")
    assert epochs_of(run_dir) == epochs_of(whole)
    figures = [evaluate(market, run) for run in (run_dir, whole)]
    for metrics in figures:
        metrics.pop("checkpoint")
    assert figures[0] == figures[1]


def test_killed_on_one_two_and_three_ranks_it_learns_alike(market, whole, tmp_path):
    run_dir = tmp_path / "killed"
    killed_again_and_again(market, run_dir, [1, 2, 3], random.Random(2))
    ours, theirs = lines_of(run_dir, "step"), lines_of(whole, "step")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], rel=LOSS_TOLERANCE
    )
    for mine, other in zip(epochs_of(run_dir), epochs_of(whole), strict=True):
        assert mine["impressions"] == other["impressions"]
        assert mine == pytest.approx(other, rel=LOSS_TOLERANCE)
    assert evaluate(market, run_dir)["log_loss"] == pytest.approx(
        evaluate(market, whole)["log_loss"], rel=LOSS_TOLERANCE
    )


if __name__ == "__main__":
    import apps.train_ranker
    from torchrec_mm.config import run

    fit.LOG_EVERY_STEPS = 1
    sys.exit(run(apps.train_ranker.main, sys.argv[1:]))
