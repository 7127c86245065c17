"""Distributing a model: every table in the plan, every weight with one optimizer."""

import pytest
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.modules.embedding_configs import EmbeddingBagConfig

from tests.ranking.small_ranker import spec_of
from torchrec_mm.data.stream.loader import COLLATING
from torchrec_mm.errors import InputError
from torchrec_mm.parallel import planning, sharding
from torchrec_mm.parallel.communication import communication_codecs
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    SparsePipeline,
    TableOptions,
    distribute,
)
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.topology import Machines
from torchrec_mm.ranking.ranker import Ranker, table_name
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import model_shards

SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.2, table_learning_rate=0.1, table_scale=0.05
)
EMBEDDING_DIM = 4


def distributed_of(
    encoded, worker, method: str = "simtier+make", seed: int = 0, **options
) -> DistributedModel:
    torch.manual_seed(0)
    model = Ranker(spec_of(method, encoded))
    return distribute(model, worker, SETTINGS, seed, TableOptions(**options))


def steps(distributed: DistributedModel, encoded, count: int = 2) -> None:
    """The network's last layer is zero before the first step: two move everything."""
    pipeline = distributed.pipeline()
    batches = iter([encoded.batch([0, 1])] * count)
    for _ in range(count):
        pipeline.progress(batches)
    pipeline.detach()


def whole(tensor: Tensor) -> Tensor:
    """The only shard of a table on one rank."""
    return tensor.local_shards()[0].tensor if hasattr(tensor, "local_shards") else tensor


def tables(distributed: DistributedModel) -> dict[str, Tensor]:
    return {
        name.split(".")[-2]: whole(tensor).clone()
        for name, tensor in distributed.model.state_dict().items()
        if ".embedding_bags." in name
    }


def kernels(distributed: DistributedModel) -> list[SplitTableBatchedEmbeddingBagsCodegen]:
    """FBGEMM's modules, which TorchRec keeps in plain lists."""
    return [
        kernel
        for module in distributed.model.modules()
        for lookup in getattr(module, "_lookups", ())
        for kernel in lookup.modules()
        if isinstance(kernel, SplitTableBatchedEmbeddingBagsCodegen)
    ]


def test_every_table_is_in_the_plan(encoded, worker):
    distributed = distributed_of(encoded, worker)
    planned = {name for module in distributed.plan.plan.values() for name in module}
    spec = spec_of("id", encoded).tables
    assert planned == {table_name(n) for n in [*spec.request, *spec.item, *spec.behaviour]}


def test_a_row_of_a_table_costs_four_bytes_a_column_and_four_of_optimizer(encoded, worker):
    distributed = distributed_of(encoded, worker)
    for name, rows in spec_of("id", encoded).tables.item.items():
        bytes_of_table = sum(
            tensor.nbytes
            for key, shards in model_shards(distributed.model, distributed.optimizer).items()
            if f".{table_name(name)}." in key
            for _, tensor in shards.parts
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
    groups = distributed.dense_optimizer.param_groups
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])


def test_training_moves_the_rows_that_were_read_and_no_other(encoded, worker):
    distributed = distributed_of(encoded, worker, "id")
    before = tables(distributed)
    steps(distributed, encoded)
    moved = tables(distributed)["user_id_table"] != before["user_id_table"]
    read = encoded.arrays.request_rows["user_id"][[0, 1]]
    assert set(moved.any(1).nonzero().flatten().tolist()) == set(read.tolist())


def test_a_lone_rank_learns_bit_for_bit_what_it_would_inside_ddp(encoded, worker):
    alone, wrapped = (distributed_of(encoded, worker, "id") for _ in range(2))
    wrapped.model.init_data_parallel()
    inside = [type(m) for m in wrapped.model.modules()]
    assert DistributedDataParallel in inside
    assert DistributedDataParallel not in [type(m) for m in alone.model.modules()]
    for distributed in (alone, wrapped):
        steps(distributed, encoded, 4)
    ours, theirs = (model_shards(one.model, one.optimizer) for one in (alone, wrapped))
    assert ours.keys() == theirs.keys()
    for key, shards in ours.items():
        ((_, mine),), ((_, other),) = shards.parts, theirs[key].parts
        assert torch.equal(mine, other), key


def test_a_table_has_a_learning_rate_of_its_own(encoded, worker):
    still = {"item_id": TableSettings(learning_rate=1e-30)}
    distributed = distributed_of(encoded, worker, "id", tables=still)
    before = tables(distributed)
    steps(distributed, encoded)
    after = tables(distributed)
    assert torch.equal(after["item_id_table"], before["item_id_table"])
    assert not torch.equal(after["user_id_table"], before["user_id_table"])


def test_fp16_rows_start_and_stay_fp16_and_load_into_fp32_tables(encoded, worker, tmp_path):
    half = {"item_id": TableSettings(dtype="fp16")}
    trained = distributed_of(encoded, worker, "id", tables=half)
    steps(trained, encoded)
    weights = tables(trained)
    assert weights["item_id_table"].dtype == torch.float16
    assert weights["user_id_table"].dtype == torch.float32
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(model_shards(trained.model), Position())
    plain = distributed_of(encoded, worker, "id", seed=1)
    load_checkpoint(find_checkpoint(tmp_path).folder, model_shards(plain.model))
    assert torch.equal(tables(plain)["item_id_table"], weights["item_id_table"].float())


def test_a_saved_plan_is_followed_by_the_next_run(encoded, worker, tmp_path):
    rows = {"item_id": TableSettings(sharding="row_wise")}
    distributed_of(encoded, worker, "id", tables=rows).save_plan(tmp_path)
    again = distributed_of(encoded, worker, "id", plan=tmp_path / "plan.json")
    assert {t.name: t.sharding for t in again.planned}["item_id_table"] == "row_wise"
    with pytest.raises(InputError, match="must be the plan's row_wise, got table_wise"):
        whole_table = {"item_id": TableSettings(sharding="table_wise")}
        distributed_of(encoded, worker, "id", tables=whole_table, plan=tmp_path / "plan.json")


def test_fewer_bytes_between_ranks_need_nccl(encoded, worker, monkeypatch):
    with pytest.raises(InputError, match="communication must be fp32 on gloo, got fp16"):
        distributed_of(encoded, worker, "id", communication="fp16")
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    for precision in ("fp16", "bf16"):
        for codecs in communication_codecs(precision).values():
            kinds = (codecs.forward.quantized_dtype, codecs.backward.quantized_dtype)
            wanted = torch.float16 if precision == "fp16" else torch.bfloat16
            assert kinds == (wanted, torch.bfloat16)


def test_tables_that_no_rank_can_hold_are_refused(encoded, worker, monkeypatch):
    tiny = Machines("cpu", world_size=1, devices_per_node=1, device_bytes=0, host_bytes=1000)
    monkeypatch.setattr(sharding, "machines_here", lambda worker: tiny)
    with pytest.raises(InputError, match="tables must fit in 0.0 GiB on each of 1 ranks"):
        distributed_of(encoded, worker, "id")


def test_a_restored_run_tells_its_tables_how_many_steps_were_done(encoded, worker):
    distributed = distributed_of(encoded, worker, "id")
    distributed.set_step(70)
    assert {int(kernel.iter) for kernel in kernels(distributed)} == {70}


def test_one_id_bags_go_the_short_way_where_tables_fit_it(encoded, worker):
    half = {"user_id": TableSettings(dtype="fp16")}
    distributed = distributed_of(encoded, worker, "id", tables=half)
    ways = {
        (kernel.weights_precision.value, type(kernel.forward).__name__ == "OneIdBagForward")
        for kernel in kernels(distributed)
    }
    assert ways == {("fp32", True), ("fp16", False)}


@pytest.mark.parametrize(
    ("rows", "ranks", "fills"),
    [(4, 3, False), (4, 2, True), (4, 4, True), (9, 4, False), (1, 1, True)],
)
def test_a_table_is_cut_by_rows_only_where_every_rank_gets_one(rows, ranks, fills):
    config = EmbeddingBagConfig(num_embeddings=rows, embedding_dim=4, name="t", feature_names=["t"])
    assert planning.fills_every_rank(config, ranks) == fills
    held = [min(rows, (r + 1) * -(-rows // ranks)) - r * -(-rows // ranks) for r in range(ranks)]
    assert all(count > 0 for count in held) == fills
    choice = planning.allowed_shardings(config, ranks, takes_raw_ids=False)
    assert ("row_wise" in choice) == (fills and ranks > 1)
    settings = {"t": TableSettings(sharding="row_wise")}
    if fills:
        planning.check_rows([config], settings, ranks)
    else:
        with pytest.raises(InputError, match="tables.t.sharding must be table_wise with"):
            planning.check_rows([config], settings, ranks)


def test_a_model_is_traced_while_no_batch_is_made(monkeypatch):
    """torch.fx would take the modules of a collator, in its thread, for parts of the model."""
    made, held = object(), []
    look = lambda self, batch, context: held.append((batch, COLLATING.locked()))  # noqa: E731
    monkeypatch.setattr(TrainPipelineSparseDist, "_pipeline_model", look)
    SparsePipeline._pipeline_model(SparsePipeline.__new__(SparsePipeline), made, None)
    assert held == [(made, True)] and not COLLATING.locked()
