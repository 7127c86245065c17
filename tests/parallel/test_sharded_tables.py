"""Whatever the sharding, tables learn what plain tensors would: one launch of two ranks for all."""

import pytest
import torch
from torch import Tensor

from tests.helpers import forks
from tests.parallel.sharded_tables import (
    LEARNING_RATE,
    ROWS,
    STEPS,
    TwoTables,
    combinations,
    ids_of,
    name_of,
    train,
    whole_tables,
)
from torchrec_mm.parallel.tables import TableSettings

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU")

EPSILON = 1e-8
IDS = [name_of(settings) for settings in combinations()]


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory) -> dict[str, dict[str, Tensor]]:
    out = tmp_path_factory.mktemp("ranks") / "tables.pt"
    forks.run_on_two_ranks("-m", "tests.parallel.sharded_tables", out)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def on_one_rank(worker) -> dict[str, dict[str, Tensor]]:
    return {name_of(each): whole_tables(train(worker, each)) for each in combinations()}


@pytest.fixture(scope="module")
def initial(worker) -> dict[str, Tensor]:
    return whole_tables(train(worker, TableSettings(learning_rate=1e-30)))


def learned(initial: dict[str, Tensor], optimizer: str) -> dict[str, Tensor]:
    """The same three steps on plain float64 tensors."""
    tables = {name: table.clone() for name, table in initial.items()}
    state = {name: torch.zeros_like(table) for name, table in tables.items()}
    weight = TwoTables().weight.detach().double().view(2, -1)
    for step in range(STEPS):
        ids = ids_of(step)
        names = [f"{name}_table" for name in ROWS]
        outputs = sum(tables[n][ids[i]] @ weight[i] for i, n in enumerate(names))
        for i, name in enumerate(names):
            gradient = torch.zeros_like(tables[name])
            gradient.index_add_(0, ids[i], 2 * outputs[:, None] * weight[i])
            squares = gradient.square()
            if optimizer == "rowwise_adagrad":
                squares = squares.mean(1, keepdim=True).expand_as(squares)
            state[name] += squares
            scale = 1 if optimizer == "sgd" else state[name].sqrt() + EPSILON
            tables[name] -= LEARNING_RATE * gradient / scale
    return tables


@pytest.mark.parametrize("settings", combinations(), ids=IDS)
def test_one_rank_learns_by_the_textbooks_rule(settings, on_one_rank, initial):
    tolerance = 1e-5 if settings.dtype == "fp32" else 5e-3
    for name, table in learned(initial, settings.optimizer).items():
        ours = on_one_rank[name_of(settings)][name]
        assert torch.allclose(ours, table, atol=tolerance)
        assert not torch.allclose(ours, initial[name], atol=tolerance)


@pytest.mark.parametrize("settings", combinations(), ids=IDS)
def test_two_ranks_learn_what_one_does(settings, on_two_ranks, on_one_rank):
    tolerance = 1e-6 if settings.dtype == "fp32" else 2e-3
    for name, table in on_one_rank[name_of(settings)].items():
        assert torch.allclose(on_two_ranks[name_of(settings)][name], table, atol=tolerance)


@pytest.mark.parametrize(
    ("sharding", "shards"),
    # two ranks on two machines: a node has one, so table_row_wise splits among one
    [
        ("table_wise", 1),
        ("row_wise", 2),
        ("column_wise", 2),
        ("table_row_wise", 1),
        ("grid_shard", 2),
    ],
)
def test_tables_are_split_as_asked(sharding, shards, on_two_ranks):
    for name in ROWS:
        assert on_two_ranks[f"{sharding} sgd fp32"][f"shards {name}_table"] == shards
