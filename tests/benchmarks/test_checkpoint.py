"""The checkpoint benchmark: what is compared, on the bytes of a real save."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from torchrec_mm.benchmarks import checkpoint
from torchrec_mm.benchmarks.checkpoint import MATRIX, CheckpointConfig, compare, seconds


def test_time_lost_and_bandwidth_are_of_the_same_save(forked, tmp_path):
    config = CheckpointConfig(work_dir=tmp_path, rows=20_000, embedding_dim=4, runs=1)
    training, disk = compare(config)
    assert (training["benchmark"], disk["benchmark"]) == ("checkpoint/training", "checkpoint/disk")
    dense = 3 * 4 * (MATRIX * MATRIX + MATRIX) + 2 * 4  # weights and two moments, two step counts
    assert training["bytes"] == 20_000 * 4 * (4 + 1) + dense
    rounded = pytest.approx(training["bytes"], rel=1e-12)
    assert disk["ours"] * training["baseline"] == rounded
    assert disk["ratio"] == disk["ours"] / disk["baseline"]
    assert not list(tmp_path.iterdir())


def test_on_a_gpu_the_batch_is_there():
    device, seen = torch.device("cuda", 0), []

    def model(ids, dense):
        seen.extend([ids.values().device, ids.lengths().device, dense.device])
        return SimpleNamespace(backward=lambda: None)

    idle = SimpleNamespace(zero_grad=lambda: None, step=lambda: None)
    worker = SimpleNamespace(device=device)
    with FakeTensorMode():
        training = SimpleNamespace(worker=worker, model=model, optimizer=idle)
        checkpoint.training_step(training, rows=10)()
    assert seen == [device] * 3


def test_a_call_is_timed_until_the_gpu_is_done(monkeypatch):
    clock = iter([1.0, 3.5])
    order = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append(str(device)))
    monkeypatch.setattr("torchrec_mm.benchmarks.harness.time.perf_counter", lambda: next(clock))
    assert seconds(lambda: order.append("call"), torch.device("cuda", 1)) == 2.5
    assert order == ["cuda:1", "call", "cuda:1"]
