"""What a step begins with: its learning rates, and random numbers of its own."""

from types import SimpleNamespace

import pytest
import torch

from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.train.fit import FitSettings, Loop
from torchrec_mm.train.position import Position


def begin(step: int, rank: int = 0, seed: int = 0, warmup_steps: int = 0) -> tuple[float, float]:
    """The rate of a step whose optimizer's is 0.8, and the first number drawn in it."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.8}])
    worker = Worker(torch.device("cpu"), rank, world_size=2)
    distributed = SimpleNamespace(worker=worker, optimizer=optimizer)
    training = SimpleNamespace(position=Position(step), distributed=distributed)
    settings = FitSettings(epochs=1, seed=seed, warmup_steps=warmup_steps)
    Loop(training, None, settings, None, None, None, None)._before_step()
    return optimizer.param_groups[0]["lr"], torch.rand(()).item()


@pytest.mark.parametrize(("step", "rate"), [(0, 0.2), (2, 0.6), (3, 0.8), (9, 0.8)])
def test_the_first_steps_of_a_run_are_shorter(step, rate):
    assert begin(step, warmup_steps=4)[0] == pytest.approx(rate)


def test_what_is_dropped_out_is_of_seed_step_and_rank_and_of_nothing_else():
    at = [(step, rank, seed) for step in (3, 4) for rank in (0, 1) for seed in (0, 1)]
    drawn = [begin(*place)[1] for place in at]
    assert len(set(drawn)) == len(at)
    assert [begin(*place)[1] for place in reversed(at)] == drawn[::-1]
