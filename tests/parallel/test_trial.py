"""The trials themselves: they work on the CPU, and notice what does not work."""

import json

import pytest
import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation

from torchrec_mm.parallel import trial

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def results(capsys, only_cpu: bool = False) -> dict[str, str | None]:
    """By device and trial; each must be announced before any has ended."""
    trial.main(only_cpu)
    loaded, *lines = capsys.readouterr().out.splitlines()
    assert loaded == "loaded"
    told = [json.loads(line) for line in lines]
    half = len(told) // 2
    assert [line | {"problem": None} for line in told[:half]] == [
        line | {"problem": None} for line in told[half:]
    ]
    return {f"{line['device']} {line['trial']}": line["problem"] for line in told[half:]}


def test_this_machine_learns_and_sums_up(capsys):
    assert results(capsys, only_cpu=True) == {"cpu tables": None, "cpu group": None}
    assert not dist.is_initialized()


def test_each_gpu_is_tried_and_one_that_fails_is_told_in_a_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.append(str(device)))
    monkeypatch.setattr(trial, "sum_up", lambda device: None)

    def learn(device, **how):
        if device.index == 1 and not how:
            raise RuntimeError("no kernel image\nsecond line")

    monkeypatch.setattr(trial, "learn", learn)
    found = results(capsys)
    of_a_gpu = ("tables", "tables in host memory", "Adam on tables", "group")
    wanted = {f"cuda:{index} {name}" for index in range(2) for name in of_a_gpu}
    assert set(found) == wanted | {"cpu tables", "cpu group"}
    failed = {name: problem for name, problem in found.items() if problem}
    assert failed == {"cuda:1 tables": "RuntimeError: no kernel image"}
    assert taken == ["cuda:0"] * 4 + ["cuda:1"] * 4


def test_only_on_request_gpus_are_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert set(results(capsys, only_cpu=True)) == {"cpu tables", "cpu group"}


class Tables:
    """In the place of FBGEMM's: notes what it is asked for, moves the rows that it is told to."""

    asked: tuple
    moves: tuple[int, ...]

    def __init__(self, specs, optimizer, **more):
        Tables.asked = (specs[0][2], specs[0][3].name, optimizer, more["device"].type)
        self.weights = torch.zeros(8, 4)

    def split_embedding_weights(self):
        return [self.weights]

    def __call__(self, ids, offsets):
        return torch.zeros(2, 4, requires_grad=True)

    def flush(self):
        self.weights[list(Tables.moves)] -= trial.RATE


@pytest.fixture
def gpu_of_the_cpu(monkeypatch):
    """Tensors that ask for a GPU are made here."""
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda values, device: tensor(values))
    monkeypatch.setattr(trial, "SplitTableBatchedEmbeddingBagsCodegen", Tables)


@pytest.mark.parametrize(
    ("number", "asked"),
    [
        (0, (EmbeddingLocation.DEVICE, "CUDA", EmbOptimType.EXACT_ROWWISE_ADAGRAD, "cuda")),
        (
            1,
            (EmbeddingLocation.MANAGED_CACHING, "CUDA", EmbOptimType.EXACT_ROWWISE_ADAGRAD, "cuda"),
        ),
        (2, (EmbeddingLocation.DEVICE, "CUDA", EmbOptimType.ADAM, "cuda")),
    ],
)
def test_a_gpu_is_asked_for_what_the_report_says(gpu_of_the_cpu, number, asked):
    Tables.moves = (2, 5)
    list(trial.trials(GPU))[number][1]()
    assert Tables.asked == asked


@pytest.mark.parametrize("moves", [(), (2,), (2, 5, 6)])
def test_rows_that_are_not_where_they_must_be_are_noticed(gpu_of_the_cpu, moves):
    Tables.moves = moves
    with pytest.raises(ValueError, match="rows must be .* got "):
        trial.learn(GPU)


def test_a_sum_that_is_wrong_is_noticed_and_the_group_is_gone(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(1))
    with pytest.raises(ValueError, match="sum must be 3, got "):
        trial.sum_up(CPU)
    assert not dist.is_initialized()


@pytest.mark.parametrize(("device", "backend"), [(CPU, "gloo"), (GPU, "nccl")])
def test_a_gpu_sums_up_over_nccl(monkeypatch, device, backend):
    asked = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **more: asked.append(backend))
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    full = torch.full
    monkeypatch.setattr(torch, "full", lambda *args, device, dtype: full(*args, dtype=dtype))
    trial.sum_up(device)
    assert asked == [backend]
