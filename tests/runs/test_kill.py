"""A run whose ranks are killed at random moments, during saves too, is the run that never was."""

import os
import random
import signal
from pathlib import Path

import pytest

from tests.helpers.forks import PATIENCE_S
from tests.helpers.runs import epochs_of, last_step, lines_of
from tests.helpers.small_market import SmallMarket
from tests.runs.killed import (
    KILLS,
    LOSS_TOLERANCE,
    MARKS,
    STEPS_PER_KILL,
    assert_learned_alike,
    assert_same_bits,
    launch_training,
    saving,
)

pytestmark = MARKS


def killed_again_and_again(
    market: SmallMarket, run_dir: Path, world_sizes: list[int], chance: random.Random
) -> None:
    """Train, with KILLS kills, on each number of ranks in turn; every other kill is in a save."""
    for number in range(KILLS):
        target = STEPS_PER_KILL * number + chance.randrange(1, STEPS_PER_KILL)
        launched = launch_training(market, run_dir, world_sizes[number % len(world_sizes)])
        launched.wait_until(lambda target=target: last_step(run_dir) >= target)
        if number % 2 == 0:
            launched.wait_until(lambda: saving(run_dir))
        os.kill(chance.choice(launched.ranks()), signal.SIGKILL)  # the launcher ends the others
        assert launched.process.wait(PATIENCE_S) != 0
    launch_training(market, run_dir, world_sizes[KILLS % len(world_sizes)]).finish()


def test_killed_on_as_many_ranks_it_ends_with_the_same_bits(long_market, whole, tmp_path):
    run_dir = tmp_path / "killed"
    killed_again_and_again(long_market, run_dir, [2], random.Random(1))
    assert len(lines_of(run_dir, "step")) == STEPS_PER_KILL * (KILLS + 1)
    assert_same_bits(long_market, run_dir, whole)


def test_killed_on_one_two_and_three_ranks_it_learns_alike(long_market, whole, tmp_path):
    run_dir = tmp_path / "killed"
    killed_again_and_again(long_market, run_dir, [1, 2, 3], random.Random(2))
    assert_learned_alike(long_market, run_dir, whole)
    for mine, other in zip(epochs_of(run_dir), epochs_of(whole), strict=True):
        assert mine["impressions"] == other["impressions"]
        assert mine == pytest.approx(other, rel=LOSS_TOLERANCE)
