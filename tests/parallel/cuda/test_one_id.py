"""EmbeddingCollection in the place of EmbeddingBagCollection, on one rank."""

import numpy as np
import pytest
import torch
from torch import nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from tests.helpers.two_ranks import ids_by_rows
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.data.stream.one_id_tables import OneIdTables
from torchrec_mm.parallel.cuda.one_id import ShardedOneIdTables
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    TableOptions,
    distribute,
)
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.ranking.ranker import build_one_id_tables, build_tables

SETTINGS = OptimizerSettings(
    learning_rate=0.1, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.5
)
WIDTH = 8


def sharded(worker, model: nn.Module, **of_tables: TableSettings) -> DistributedModel:
    with ids_by_rows():
        return distribute(model, worker, SETTINGS, 0, TableOptions(of_tables))


def of(distributed: DistributedModel) -> nn.Module:
    return distributed.model.module.tables


def small_model(**rows: int) -> nn.Module:
    tables = build_one_id_tables(rows or {"a": 40, "b": 9}, WIDTH)
    return nn.ModuleDict({"tables": tables, "dense": nn.Linear(1, 1)})


def test_each_key_has_the_rows_of_its_ids_and_then_zeros(worker):
    tables = of(sharded(worker, small_model()))
    assert isinstance(tables, ShardedOneIdTables)
    found = tables(one_id_bags({"a": [7, 0, 31], "b": [5]})).wait()
    weights = {name: each.weight for name, each in tables.embedding_bags.items()}
    assert torch.equal(found["a"], weights["a_table"][[7, 0, 31]])
    assert torch.equal(found["b"][0], weights["b_table"][5])
    assert torch.equal(found["b"][1:], torch.zeros(2, WIDTH))


def test_a_rank_without_any_bag_gets_a_row_of_zeros(worker):
    nothing = np.zeros(0, dtype=np.int64)
    found = of(sharded(worker, small_model()))(one_id_bags({"a": nothing, "b": nothing})).wait()
    assert torch.equal(found.values(), torch.zeros(1, 2 * WIDTH))


def test_its_names_are_those_of_bags(worker):
    bags, rows = distribute(small_model(), worker, SETTINGS, 0), sharded(worker, small_model())
    for each in (lambda m: m.model.state_dict(), lambda m: m.optimizer.state_dict()["state"]):
        assert each(rows).keys() == each(bags).keys()
    assert [n for n, _ in rows.model.named_parameters()] == [
        n for n, _ in bags.model.named_parameters()
    ]


def test_what_it_saves_it_loads(worker):
    first, second = sharded(worker, small_model()), sharded(worker, small_model())
    state = first.model.state_dict()
    shard = state["tables.embedding_bags.a_table.weight"].local_shards()[0].tensor
    with torch.no_grad():
        shard += 1
    assert not torch.equal(shard, of(second).embedding_bags["a_table"].weight)
    missing, unexpected = second.model.load_state_dict(state)
    assert not missing and not unexpected
    assert torch.equal(shard, of(second).embedding_bags["a_table"].weight)


@pytest.mark.parametrize("sharding", ["column_wise", "table_row_wise"])
def test_a_sharding_that_it_does_not_have_is_of_bags(sharding, worker):
    settings = TableSettings(sharding=sharding, optimizer="sgd")
    tables = of(sharded(worker, small_model(), a=settings))
    assert isinstance(tables, ShardedEmbeddingBagCollection)
    assert not isinstance(tables, ShardedOneIdTables)


def test_bags_of_several_ids_stay_bags(worker):
    model = small_model()
    model.tables = build_tables({"a": 9}, WIDTH, {"a": "mean"})
    assert isinstance(of(sharded(worker, model)), ShardedEmbeddingBagCollection)
    assert not isinstance(build_tables({"a": 9}, WIDTH), OneIdTables)


def test_on_a_cpu_they_stay_bags_too(worker):
    tables = of(distribute(small_model(), worker, SETTINGS, 0))
    assert isinstance(tables, ShardedEmbeddingBagCollection)
