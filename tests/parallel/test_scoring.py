"""A run's model where nothing learns: what its tables keep, what they lose, where they fit."""

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType

from tests.parallel.test_capacity import gpus
from tests.parallel.test_sharding import distributed_of, kernels, steps, tables
from tests.ranking.small_ranker import spec_of
from torchrec_mm.errors import HostError
from torchrec_mm.parallel import sharding
from torchrec_mm.parallel.plan_files import planned_tables
from torchrec_mm.parallel.planning import DoesNotFit, make_plan, prepare_tables, table_configs
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.scoring import distribute_for_scoring, make_scoring_plan, scoring_settings
from torchrec_mm.parallel.sharding import TableOptions
from torchrec_mm.parallel.tables import TableSettings, settings_by_table
from torchrec_mm.parallel.topology import GIB, RESERVE, Machines
from torchrec_mm.ranking.ranker import Ranker, build_tables
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import model_shards

ROWS_97_GIB = 97 * GIB // (64 * 4)

pytestmark = pytest.mark.usefixtures("worker")


def planned(rows: dict[str, int], machines: Machines, make=make_scoring_plan, **settings) -> dict:
    """(sharding, kernel) of each feature's table, with ``settings`` for item_id."""
    model = build_tables(rows, 64)
    features = {config.name: config.feature_names for config in table_configs(model)}
    asked = settings_by_table({"item_id": TableSettings(**settings)}, features)
    if make is make_scoring_plan:
        asked = {
            name: scoring_settings(table, device=machines.device) for name, table in asked.items()
        }
    prepare_tables(model, asked, 0.0)
    plan = planned_tables(model, make(model, asked, machines), asked)
    return {table.name.removesuffix("_table"): (table.sharding, table.kernel) for table in plan}


def test_a_table_that_only_the_host_can_hold_is_scored_from_there():
    rows, cached = {"item_id": ROWS_97_GIB}, {"kernel": "fused_uvm_caching"}
    with pytest.raises(DoesNotFit, match="got 97.0 GiB: python"):
        planned(rows, gpus(1))
    assert planned(rows, gpus(1), **cached) == {"item_id": ("table_wise", "fused_uvm_caching")}
    larger_cache = {**cached, "cache_load_factor": 0.9}
    with pytest.raises(DoesNotFit):
        planned(rows, gpus(1), **larger_cache)


def test_a_table_that_training_cuts_in_three_is_scored_whole():
    adam, rows = {"optimizer": "adam"}, {"item_id": int(66 * GIB) // (64 * 4)}
    with pytest.raises(DoesNotFit, match="got 198.0 GiB with their optimizers"):
        planned(rows, gpus(1), make=make_plan, **adam)
    assert planned(rows, gpus(1), **adam) == {"item_id": ("table_wise", "fused")}


def test_the_dense_part_takes_its_weights_alone():
    free = int(79 * GIB * (1 - RESERVE))
    model = torch.nn.ModuleDict({"tables": build_tables({"item_id": 9}, 64)})
    with torch.device("meta"):
        model["dense"] = torch.nn.Linear(1 << 16, free // (1 << 16) // 8)  # half of what is free
    settings = {
        "item_id_table": scoring_settings(TableSettings(sharding="row_wise"), device="cuda")
    }
    prepare_tables(model, settings, 0.0)
    plan = make_scoring_plan(model, settings, gpus(1))
    (table,) = planned_tables(model, plan, settings)
    assert table.sharding == "row_wise"
    with pytest.raises(DoesNotFit):
        make_plan(model, settings, gpus(1))


def test_sharding_is_the_runs_where_the_ranks_allow_it_and_else_the_planners():
    rows = {"item_id": 1000, "user_id": 3}
    asked = {"sharding": "column_wise", "optimizer": "adagrad"}
    assert planned(rows, gpus(2), **asked)["item_id"] == ("column_wise", "fused")
    few = {"item_id": 5}
    assert planned(few, gpus(5), sharding="row_wise")["item_id"] == ("row_wise", "fused")
    assert planned(few, gpus(8), sharding="row_wise")["item_id"] == ("table_wise", "fused")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_kept_of_a_table(device):
    asked = TableSettings("row_wise", "fused_uvm_caching", "fp16", "adam", 0.5, 0.3)
    on_gpu = ("fused_uvm_caching", 0.3) if device == "cuda" else (None, None)
    kernel, factor = on_gpu
    wanted = TableSettings("row_wise", kernel, "fp16", "sgd", None, factor)
    assert scoring_settings(asked, device=device) == wanted


def test_a_scored_model_has_the_weights_of_the_run_and_no_state_of_optimizers(
    encoded, worker, tmp_path
):
    options = TableOptions({"item_id": TableSettings(dtype="fp16")})
    trained = distributed_of(encoded, worker, "id", tables=options.tables)
    steps(trained, encoded)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(model_shards(trained.model, trained.optimizer), Position())
    scored = distribute_for_scoring(Ranker(spec_of("id", encoded)), worker, options)
    folder = find_checkpoint(tmp_path).folder
    load_checkpoint(folder, model_shards(scored.model), ignore=("optimizer.",))
    ours, theirs = tables(scored), tables(trained)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [n for n, table in ours.items() if table.dtype == torch.float16] == ["item_id_table"]
    assert {kernel.optimizer for kernel in kernels(scored)} == {EmbOptimType.EXACT_SGD}
    assert not any(scored.model.fused_optimizer.state_dict()["state"].values())
    batch = encoded.batch([0, 1])
    logits = []
    for model in (trained.model, scored.model):
        model.eval()
        with torch.no_grad():
            _, (_, each, *_) = model(batch)
        logits.append(each)
    assert torch.equal(*logits)


def test_a_gpu_that_fbgemm_has_no_code_for_is_refused_by_name(encoded, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    on_gpu = Worker(torch.device("cuda", 0), 0, 1)
    with pytest.raises(HostError, match="^Tesla T4: compute capability must be .* got 7.5. Cure:"):
        distribute_for_scoring(Ranker(spec_of("id", encoded)), on_gpu, TableOptions())
    with pytest.raises(HostError, match="Tesla T4"):
        distributed_of(encoded, on_gpu, "id")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    sharding.check_gpu(on_gpu.device)
