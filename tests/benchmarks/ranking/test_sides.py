"""How a side's speed is read."""

from itertools import count

import pytest
import torch
import torch.distributed as dist

from torchrec_mm.benchmarks import harness
from torchrec_mm.benchmarks.ranking.sides import WARM_UP_STEPS, steady_rate
from torchrec_mm.parallel.process_group import process_group

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Steps:
    """A clock that shows the steps taken, half a second each; as a call, a step."""

    def __init__(self, monkeypatch) -> None:
        self.number, self.now = count(1), 0.0
        monkeypatch.setattr(harness.time, "perf_counter", lambda: self.now)

    def __call__(self) -> int:
        self.now = 0.5 * next(self.number)
        return 1_000_000 if self.now <= 0.5 * WARM_UP_STEPS else 30


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_rate_is_that_of_all_ranks_steps_after_warming_up(monkeypatch, ranks):
    """With ranks that do as this one does."""
    steps = Steps(monkeypatch)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group=None: tensor.mul_(ranks))
    with process_group():
        assert steady_rate(steps, 4.0, CPU) == pytest.approx(ranks * 60.0)
    assert next(steps.number) - 1 == WARM_UP_STEPS + 8


def test_a_group_that_takes_tensors_of_gpus_alone_is_given_no_other(monkeypatch):
    """A group for CUDA only, as NCCL's are, refuses what lies on the CPU."""
    steps, waited = Steps(monkeypatch), []
    monkeypatch.setattr(
        torch.cuda, "synchronize", lambda device: waited.append((device, steps.now))
    )
    dist.init_process_group("cuda:gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
            dist.all_reduce(torch.zeros(1))
        assert steady_rate(steps, 4.0, GPU) == pytest.approx(60.0)
    finally:
        dist.destroy_process_group()
    begins = 0.5 * WARM_UP_STEPS
    assert waited == [(GPU, begins), (GPU, begins + 4.0)]  # once before and once after
