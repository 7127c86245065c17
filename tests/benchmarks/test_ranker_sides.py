"""How a side's speed is read."""

from itertools import count

import pytest

from torchrec_mm.benchmarks import ranker_sides
from torchrec_mm.benchmarks.ranker_sides import WARM_UP_STEPS, steady_rate
from torchrec_mm.parallel.process_group import process_group


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_rate_is_that_of_all_ranks_steps_after_warming_up(monkeypatch, ranks):
    """A clock that shows the steps taken, half a second each; ranks that do as this one does."""
    steps = count(1)
    now = [0.0]

    def step() -> int:
        now[0] = 0.5 * next(steps)
        return 1_000_000 if now[0] <= 0.5 * WARM_UP_STEPS else 30

    monkeypatch.setattr(ranker_sides.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ranker_sides.dist, "all_reduce", lambda tensor: tensor.mul_(ranks))
    with process_group():
        assert steady_rate(step, 4.0) == pytest.approx(ranks * 60.0)
    assert next(steps) - 1 == WARM_UP_STEPS + 8
