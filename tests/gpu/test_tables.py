"""Tables on a GPU learn in 100 steps what the CPU's learn, wherever their rows lie."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tests.parallel.sharded_tables import whole_tables
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.sharding import OptimizerSettings, TableOptions, distribute
from torchrec_mm.parallel.tables import KERNELS, TableSettings
from torchrec_mm.ranking.ranker import build_one_id_tables, build_tables

pytestmark = pytest.mark.gpu

ROWS = {"a": 4000, "b": 70}
WIDTH, STEPS = 16, 100
SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.05, table_scale=0.5
)


class OneIdModel(nn.Module):
    """The square of a linear map of each row that is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = build_one_id_tables(ROWS, WIDTH)
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, bags: KeyedJaggedTensor) -> Tensor:
        found = self.tables(bags)
        return sum((found[name] @ self.weight).square().mean() for name in ROWS)

    @staticmethod
    def bags(step: int) -> KeyedJaggedTensor:
        generator = np.random.default_rng(step)
        return one_id_bags({n: generator.permutation(rows)[:64] for n, rows in ROWS.items()})


class BagModel(OneIdModel):
    """The same of means of up to three rows, which one bag may hold twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = build_tables(ROWS, WIDTH, dict.fromkeys(ROWS, "mean"))

    @staticmethod
    def bags(step: int) -> KeyedJaggedTensor:
        generator = np.random.default_rng(step)
        lengths = generator.integers(4, size=(len(ROWS), 50))
        ids = [
            generator.integers(r, size=n)
            for r, n in zip(ROWS.values(), lengths.sum(1), strict=True)
        ]
        values = torch.from_numpy(np.concatenate(ids))
        return KeyedJaggedTensor(
            [*ROWS], values, lengths=torch.from_numpy(lengths.ravel()).int(), stride=50
        )


def learned(model: type[OneIdModel], settings: TableSettings) -> dict[str, Tensor]:
    """Losses, and the tables afterwards."""
    options = TableOptions(dict.fromkeys(ROWS, settings))
    with process_group() as worker:
        made = distribute(model(), worker, SETTINGS, 0, options)
        losses = []
        for step in range(STEPS):
            made.optimizer.zero_grad()
            loss = made.model(model.bags(step).to(worker.device))
            loss.backward()
            made.optimizer.step()
            losses.append(loss.detach().cpu())
        return whole_tables(made) | {"losses": torch.stack(losses)}


@pytest.mark.parametrize("model", [OneIdModel, BagModel])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_they_learn_what_a_cpus_learn(
    model: type[OneIdModel], kernel: str, optimizer: str, dtype: str, ranks_on: Callable
):
    settings = TableSettings(kernel=kernel, optimizer=optimizer, dtype=dtype)
    with ranks_on("gpu"):
        there = learned(model, settings)
    with ranks_on("cpu"):
        here = learned(model, replace(settings, kernel=None))
    tolerance = 1e-4 if dtype == "fp32" else 2e-2
    assert here["losses"][-1] < here["losses"][0]
    for name, table in here.items():
        torch.testing.assert_close(there[name], table, rtol=tolerance, atol=tolerance, msg=name)
