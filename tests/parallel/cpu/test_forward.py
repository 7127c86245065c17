"""Collections of tables the short way on a lone rank: TorchRec's results, bag for bag."""

from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.parallel.cpu import forward
from torchrec_mm.parallel.cpu.forward import ShortForward
from torchrec_mm.parallel.scoring import distribute_for_scoring
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    TableOptions,
    distribute,
)
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.ranking.ranker import build_tables
from torchrec_mm.runs.tensor_shards import model_shards

ROWS = {"a": 30, "b": 7, "c": 50}
SETTINGS = OptimizerSettings(
    learning_rate=0.0, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.5
)


def tables(worker, **settings) -> DistributedModel:
    """Three tables and a dense layer; ``settings``: of all tables, or by table."""
    given = {name: TableSettings(**settings) for name in ROWS} if settings else {}
    return distribute(small(), worker, SETTINGS, 0, TableOptions(given))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"tables": build_tables(ROWS, 8), "dense": nn.Linear(1, 1)})


def collection(distributed) -> nn.Module:
    return distributed.model.module["tables"]


def torchrecs(distributed: DistributedModel) -> DistributedModel:
    """The same, TorchRec's way."""
    del collection(distributed).forward
    return distributed


def bags(seed: int, names: str = "abc") -> KeyedJaggedTensor:
    """Bags with ids that repeat, as many empty ones as tables differ."""
    generator = np.random.default_rng(seed)
    rows = {name: generator.integers(0, ROWS[name], 9 * n) for n, name in enumerate(names)}
    return one_id_bags(rows)


def trained(distributed: DistributedModel, *batches: KeyedJaggedTensor) -> dict[str, Tensor]:
    """By name, look-ups of each batch and all that a checkpoint would hold after them."""
    seen = {}
    for step, batch in enumerate(batches):
        found = collection(distributed)(batch)
        by_name = [found[name] for name in ROWS]
        seen |= {f"{step} {name}": x.detach() for name, x in zip(ROWS, by_name, strict=True)}
        generator = torch.Generator().manual_seed(step)
        torch.autograd.backward(
            by_name, [torch.randn(x.shape, generator=generator) for x in by_name]
        )
    shards = model_shards(distributed.model, distributed.optimizer)
    return seen | {key: each.parts[0][1] for key, each in shards.items()}


def assert_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-5, atol=1e-6, msg=key)


def test_the_short_way_learns_what_torchrec_learns_under_the_same_names(worker):
    batches = [bags(seed) for seed in range(3)]
    short = tables(worker)
    assert isinstance(collection(short)(bags(0)), KeyedTensor)
    assert_alike(trained(short, *batches), trained(torchrecs(tables(worker)), *batches))


def test_features_may_come_in_any_order(worker):
    short, long = tables(worker), torchrecs(tables(worker))
    assert_alike(trained(short, bags(0, "cab")), trained(long, bags(0, "cab")))


def pooled(seed: int, names: str = "abc") -> KeyedJaggedTensor:
    """Bags of up to five ids, some of them twice in a bag."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(6, size=(len(names), 7))
    ids = [
        generator.integers(ROWS[name], size=of.sum())
        for name, of in zip(names, lengths, strict=True)
    ]
    values = torch.from_numpy(np.concatenate(ids))
    lengths = torch.from_numpy(lengths.reshape(-1).astype(np.int32))
    return KeyedJaggedTensor([*names], values, lengths=lengths)


@pytest.mark.parametrize("pooling", [{}, {"a": "mean", "c": "sum"}])
@pytest.mark.parametrize("shared", [{}, {"a": "both", "c": "both"}])
@pytest.mark.parametrize("names", ["abc", "cab"])
def test_longer_bags_and_features_of_one_table_learn_what_torchrec_learns(
    pooling, shared, names, worker
):
    rows = ROWS | dict.fromkeys(shared, ROWS["a"])
    pooling = {} if shared and pooling else pooling
    pooling |= {"a": "mean"} if shared else {}

    def made() -> DistributedModel:
        torch.manual_seed(0)
        collections = {"tables": build_tables(rows, 8, pooling, shared), "dense": nn.Linear(1, 1)}
        return distribute(nn.ModuleDict(collections), worker, SETTINGS, 0, TableOptions())

    with mock.patch.dict(ROWS, rows):
        batches = [pooled(0, names), pooled(1, names), bags(2, names), pooled(3, names)]
    short = made()
    assert isinstance(collection(short).forward, ShortForward)
    with mock.patch.object(forward, "pool_tables", side_effect=forward.pool_tables) as each:
        ours = trained(short, *batches)
    assert each.call_count == (4 if shared else 3)
    assert_alike(ours, trained(torchrecs(made()), *batches))


def test_a_table_with_its_own_learning_rate_keeps_it(worker):
    options = TableOptions({"b": TableSettings(learning_rate=0.7)})
    short, long = (distribute(small(), worker, SETTINGS, 0, options) for _ in range(2))
    assert_alike(trained(short, bags(0)), trained(torchrecs(long), bags(0)))


def test_a_new_learning_rate_is_followed(worker):
    found = []
    for distributed in (tables(worker), torchrecs(tables(worker))):
        for group in distributed.optimizer.param_groups:
            group["lr"] = 0.7
        distributed.optimizer.zero_grad()
        found.append(trained(distributed, bags(0)))
    assert_alike(*found)


@pytest.mark.parametrize(
    "other", [{"dtype": "fp16"}, {"optimizer": "adagrad"}, {"optimizer": "sgd"}]
)
def test_tables_with_other_rules_keep_to_torchrecs_way(other, worker):
    assert "forward" not in vars(collection(tables(worker, **other)))


def test_where_nothing_learns_tables_without_state_go_the_short_way(worker):
    scoring = distribute_for_scoring(small(), worker, TableOptions())
    with mock.patch.object(forward, "one_id_bags", side_effect=forward.one_id_bags) as short:
        with torch.no_grad():
            ours = collection(scoring)(bags(0)).values()
        assert short.call_count == 1
        theirs = collection(scoring)(bags(0)).values()  # could be asked for gradients
        assert short.call_count == 1
    assert torch.equal(ours, theirs)
