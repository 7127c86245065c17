"""The random numbers that a step begins with, and what an epoch ends with."""

from types import SimpleNamespace

import torch

from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.runs.position import Position
from torchrec_mm.train.fit import Loop
from torchrec_mm.train.settings import TrainSettings
from torchrec_mm.train.totals import EpochSummary


def drawn_in(step: int, rank: int, seed: int) -> float:
    """The first random number of a step."""
    optimizer = SimpleNamespace(param_groups=[])
    worker = Worker(torch.device("cpu"), rank, world_size=2)
    distributed = SimpleNamespace(worker=worker, optimizer=optimizer)
    training = SimpleNamespace(position=Position(step=step), distributed=distributed)
    settings = TrainSettings(epochs=1, seed=seed)
    Loop(training, None, settings, None, None, None, None)._before_step()
    return torch.rand(()).item()


def test_what_is_dropped_out_is_of_seed_step_and_rank_and_of_nothing_else():
    at = [(step, rank, seed) for step in (3, 4) for rank in (0, 1) for seed in (0, 1)]
    drawn = [drawn_in(*place) for place in at]
    assert len(set(drawn)) == len(at)
    assert [drawn_in(*place) for place in reversed(at)] == drawn[::-1]


def test_the_speed_of_an_epoch_is_that_of_what_this_start_learned_from():
    """Of 100 impressions 40 were learned from before the run was stopped and resumed."""
    totals = SimpleNamespace(close_epoch=lambda: EpochSummary(0.5, 0.6, 100))
    distributed = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[]))
    training = SimpleNamespace(position=Position(step=9), totals=totals, distributed=distributed)
    lines: list[dict] = []
    run = SimpleNamespace(log=lambda **values: lines.append(values))
    loop = Loop(training, run, TrainSettings(epochs=1, seed=0), None, None, None, None)
    loop.resumed_with, loop.seconds, loop.save = 40, 2.0, lambda metric: None
    loop.end_epoch(0, test=None)
    assert (lines[0]["impressions"], lines[0]["impressions_per_s"]) == (100, 30)
    assert training.position == Position(step=9, epoch=1)
