"""Learning rates grow to what they are, those of the tables' fused kernels too."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import build_tables
from torchrec_mm.runs.position import Position
from torchrec_mm.train.fit import Loop
from torchrec_mm.train.settings import TrainSettings

IDS = KeyedJaggedTensor(keys=["a"], values=torch.tensor([1]), lengths=torch.tensor([1]))


class TableAndWeight(nn.Module):
    """One look-up, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = build_tables({"a": 3}, 4)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, ids: KeyedJaggedTensor) -> torch.Tensor:
        return self.tables(ids).values().sum() + self.weight.sum()


def moved(worker, warmup_steps: int, step: int) -> tuple[float, float]:
    """How far a first update goes, of a table's weights and of the dense weight."""
    settings = OptimizerSettings(learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.5)
    distributed = distribute(TableAndWeight(), worker, settings, seed=0)
    training = SimpleNamespace(position=Position(step=step), distributed=distributed)
    run = TrainSettings(epochs=1, seed=0, warmup_steps=warmup_steps)
    Loop(training, None, run, None, None, None, None)._before_step()
    distributed.optimizer.zero_grad()
    distributed.model(IDS).backward()
    distributed.optimizer.step()
    state = distributed.model.state_dict()
    table = state["tables.embedding_bags.a_table.weight"].local_shards()[0].tensor
    return -table[1, 0].item(), 1 - state["weight"].item()


@pytest.mark.parametrize(
    ("warmup_steps", "step", "share"), [(4, 0, 0.25), (4, 2, 0.75), (4, 3, 1), (4, 9, 1), (0, 0, 1)]
)
def test_a_step_goes_as_far_as_its_share_of_the_rate(warmup_steps, step, share, worker):
    table, weight = moved(worker, warmup_steps, step)
    assert table == pytest.approx(0.5 * share, rel=1e-4)
    assert weight == pytest.approx(0.01 * share, rel=1e-3)
