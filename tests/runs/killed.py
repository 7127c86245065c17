"""Trainings under a launcher whose ranks get killed, and what must come of them all the same.

TORCHREC_MM_KILLS is the number of kills in each test.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.forks import PATIENCE_S, Fork, children_of
from tests.helpers.runs import epochs_of, evaluate, lines_of, ranker_flags
from tests.helpers.small_market import SmallMarket

KILLS = int(os.environ.get("TORCHREC_MM_KILLS", "2"))
STEPS_PER_KILL = 8
EPOCHS = 2
BATCH = 16
# Sums of floats in another order, over the steps of the default number of kills and of 20.
LOSS_TOLERANCE = 1e-4
RESUME = ("--resume", "true")

ON_CPUS = pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU")
MARKS = [pytest.mark.kill, ON_CPUS]


class Launched:
    """A launcher and its ranks; what they say is in a file."""

    def __init__(self, log: Path, *words: str, **of_fork: Any) -> None:
        self.log = log
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        self.process = Fork([*launcher, *words], stdout=log, stderr=log, **of_fork)

    def ranks(self) -> list[int]:
        """Process ids."""
        return children_of(self.process.pid)

    def wait_until(self, happens: Callable[[], bool]) -> None:
        """Look again and again; fail when all ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not happens():
            assert self.process.poll() is None, self.complaint()
            assert time.monotonic() < deadline, self.complaint()
            time.sleep(0.001)

    def finish(self) -> None:
        """It ends well."""
        assert self.process.wait(PATIENCE_S) == 0, self.complaint()

    def complaint(self) -> str:
        return self.log.read_text()[-6000:]


def train_requests(kills: int) -> int:
    """So many that a run has ``STEPS_PER_KILL`` steps for each kill, and as many after the last."""
    return BATCH * STEPS_PER_KILL * (kills + 1) // EPOCHS


def training(market: SmallMarket, run_dir: Path) -> list[str]:
    """The command and its flags."""
    flags = [*ranker_flags(market, run_dir, "simtier"), "--epochs", str(EPOCHS)]
    return ["-m", "apps.train_ranker", *flags, "--test_auc", "true", "--checkpoint_steps", "2"]


def launch_training(market: SmallMarket, run_dir: Path, world_size: int) -> Launched:
    """Start the run, or go on with it, on some ranks."""
    ranks = ("--standalone", f"--nproc_per_node={world_size}")
    return Launched(run_dir.with_suffix(".log"), *ranks, *training(market, run_dir), *RESUME)


def saving(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob(".step-*"))


def assert_same_bits(market: SmallMarket, run_dir: Path, whole: Path) -> None:
    """Lines and metrics are those of the run that nobody killed."""
    assert lines_of(run_dir, "step") == lines_of(whole, "step")
    assert epochs_of(run_dir) == epochs_of(whole)
    figures = [evaluate(market, run) for run in (run_dir, whole)]
    for metrics in figures:
        metrics.pop("checkpoint")
    assert figures[0] == figures[1]


def assert_learned_alike(market: SmallMarket, run_dir: Path, whole: Path) -> None:
    """Every step once, with the losses of the run that nobody killed up to the order of sums."""
    ours, theirs = lines_of(run_dir, "step"), lines_of(whole, "step")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], rel=LOSS_TOLERANCE
    )
    assert evaluate(market, run_dir)["log_loss"] == pytest.approx(
        evaluate(market, whole)["log_loss"], rel=LOSS_TOLERANCE
    )
