"""Flags for GPUs: refused on CPUs, and a compiled network learns what a plain one does."""

from unittest import mock

import pytest
import torch
from torch._dynamo.utils import counters

import apps.pretrain
import apps.train_make
import apps.train_ranker
from tests.helpers.runs import make_flags, ranker_flags
from tests.helpers.two_ranks import ids_by_rows
from tests.ranking.small_ranker import spec_of
from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.parallel.cuda.modes import compile_network, use_tf32
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.sharding import OptimizerSettings, SparsePipeline, distribute
from torchrec_mm.ranking.ranker import Ranker

GPU = torch.device("cuda")
SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.5
)


@pytest.mark.parametrize("flag", ["tf32", "compile"])
def test_on_a_cpu_the_ranker_refuses_them_by_name(flag, market, refused, tmp_path):
    flags = [*ranker_flags(market, tmp_path / "run", "id"), f"--{flag}", "true"]
    assert f"{flag} must be false where ranks compute on a CPU" in refused(
        apps.train_ranker.main, flags
    )
    assert not (tmp_path / "run").exists()


def test_on_a_cpu_make_refuses_tf32(market, refused, tmp_path):
    flags = [*make_flags(market, tmp_path / "run"), "--tf32", "true"]
    assert "tf32 must be false" in refused(apps.train_make.main, flags)


def test_float32_is_float32_until_tf32_is_asked_for():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for asked in (True, False):
        use_tf32(asked, GPU)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (asked, asked)


def test_a_group_begins_with_float32():
    use_tf32(True, GPU)
    with process_group():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simtier+make"])
def test_a_compiled_network_learns_the_same_by_one_graph_for_all_batches(
    method, encoded, worker, monkeypatch
):
    monkeypatch.setenv(SWITCH, "0")  # the kernels of a CPU are none that a graph can hold
    batches = [encoded.batch([*range(n)], method) for n in (12, 9, 5, 7)]
    found = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = Ranker(spec_of(method, encoded))
        with mock.patch.object(
            torch.nn.Module, "compile", lambda self, **how: compiled_by_hand(self, how)
        ):
            compile_network(asked, model.network, GPU)
        with ids_by_rows():
            made = distribute(model, worker, SETTINGS, 0)
        counters.clear()
        pipeline = SparsePipeline(
            made.model, made.optimizer, torch.device("cpu"), execute_all_batches=True
        )
        coming = iter(batches)
        found.append([float(pipeline.progress(coming).loss) for _ in batches])
        assert counters["stats"]["unique_graphs"] == asked
        assert not counters["graph_break"]
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def compiled_by_hand(network: torch.nn.Module, how: dict) -> None:
    """As asked, but for the code of the graph, which takes a C++ compiler minutes."""
    network._compiled_call_impl = torch.compile(network._call_impl, backend="aot_eager", **how)
