"""Distributing a model: every table in the plan, every weight with one optimizer."""

import pytest
import torch
from torch import Tensor

from tests.ranking.small_ranker import encode, spec_of
from tests.small_market import write_small_market
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import DistributedModel, OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import Ranker, table_name
from torchrec_mm.train.state import training_pieces

SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.05
)
EMBEDDING_DIM = 4


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return encode(write_small_market(tmp_path_factory.mktemp("market")))


@pytest.fixture(scope="module")
def worker():
    with quiet_libraries(), process_group() as alone:
        yield alone


def distributed_of(encoded, worker, method: str = "simtier+make", seed=0) -> DistributedModel:
    torch.manual_seed(0)
    return distribute(Ranker(spec_of(method, encoded.vocabularies)), worker, SETTINGS, seed)


def whole(tensor: Tensor) -> Tensor:
    """The only shard of a table on one rank."""
    return tensor.local_shards()[0].tensor if hasattr(tensor, "local_shards") else tensor


def tables(distributed: DistributedModel) -> dict[str, Tensor]:
    return {
        name.split(".")[-2]: whole(tensor).clone()
        for name, tensor in distributed.model.state_dict().items()
        if ".embedding_bags." in name
    }


def test_every_table_is_in_the_plan(encoded, worker):
    distributed = distributed_of(encoded, worker)
    planned = {name for module in distributed.plan.plan.values() for name in module}
    spec = spec_of("id", encoded.vocabularies).tables
    assert planned == {table_name(n) for n in [*spec.request, *spec.item, *spec.behaviour]}


def test_a_row_of_a_table_costs_four_bytes_a_column_and_four_of_optimizer(encoded, worker):
    distributed = distributed_of(encoded, worker)
    for name, rows in spec_of("id", encoded.vocabularies).tables.item.items():
        bytes_of_table = sum(
            tensor.nbytes
            for key, pieces in training_pieces(distributed).items()
            if f".{table_name(name)}." in key
            for _, tensor in pieces.parts
        )
        assert bytes_of_table == rows * 4 * (EMBEDDING_DIM + 1)


def test_tables_start_within_their_scale_each_with_numbers_of_its_own(encoded, worker):
    drawn = tables(distributed_of(encoded, worker))
    assert len(drawn) == 8
    for table in drawn.values():
        assert table.abs().max() <= 0.05 and table.any()
    firsts = [table[0].tolist() for table in drawn.values()]
    assert len({tuple(first) for first in firsts}) == len(firsts)


def test_tables_depend_on_the_seed_and_on_nothing_else(encoded, worker):
    first, again, other = (tables(distributed_of(encoded, worker, seed=s)) for s in (1, 1, 2))
    for name, table in first.items():
        assert torch.equal(table, again[name])
        assert not torch.equal(table, other[name])


def test_every_trainable_weight_has_one_optimizer_and_make_has_none(encoded, worker):
    distributed = distributed_of(encoded, worker)
    distributed.create_optimizer_state()
    optimized = set(distributed.optimizer.state_dict()["state"])
    names = {name for name, _ in distributed.model.named_parameters()}
    assert optimized == {name for name in names if not name.startswith("network.make.")}
    assert any(name.startswith("network.make.") for name in names)


def test_training_moves_the_rows_that_were_read_and_no_other(encoded, worker):
    distributed = distributed_of(encoded, worker, "id")
    before = tables(distributed)
    pipeline = distributed.pipeline()
    batches = iter([encoded.batch([0, 1]), encoded.batch([0, 1])])
    for _ in range(2):  # the network's last layer is zero before the first step
        pipeline.progress(batches)
    moved = tables(distributed)["user_id_table"] != before["user_id_table"]
    read = encoded.requests.request_rows["user_id"][[0, 1]]
    assert set(moved.any(1).nonzero().flatten().tolist()) == set(read.tolist())
    pipeline.detach()
