"""Which device a rank takes, on hosts with as many GPUs as are said here."""

import pytest
import torch

from torchrec_mm import environment, gpus
from torchrec_mm.errors import HostError
from torchrec_mm.parallel import process_group


@pytest.fixture
def rank(monkeypatch):
    """This process as a rank of a host; the device that it takes, and the one that is set."""

    def of(gpus_here: int, local_rank: int = 0, ranks: int = 1, nodes: int = 1) -> torch.device:
        launched = {"LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": nodes}
        for name, value in launched.items():
            monkeypatch.setenv(name, str(value))
        taken = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus_here > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus_here)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        device = process_group._device()
        assert taken == ([device] if gpus_here else [])
        return device

    monkeypatch.setattr(gpus, "build_problem", lambda: None)
    monkeypatch.setattr(gpus, "driver_problem", lambda: None)
    return of


def refusal(rank, *args: int) -> str:
    with pytest.raises(HostError) as refused:
        rank(*args)
    return str(refused.value)


def test_each_rank_of_a_host_takes_a_gpu_of_its_own(rank):
    taken = [str(rank(8, local_rank, 3)) for local_rank in range(3)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2"]
    assert str(rank(1)) == "cuda:0"


def test_a_host_without_gpus_computes_on_the_cpu(rank):
    assert [str(rank(0, local_rank, 2)) for local_rank in range(2)] == ["cpu", "cpu"]


@pytest.mark.parametrize("local_rank", [0, 1])
def test_more_ranks_than_gpus_are_refused_by_every_rank_with_what_to_type(
    rank, local_rank, monkeypatch
):
    monkeypatch.setattr(process_group.platform, "node", lambda: "n7")
    assert refusal(rank, 1, local_rank, 2, 3) == (
        "ranks on n7 must be at most its GPUs, 1, got 2. Cure: -j 3x1 --gpu 1, --nproc-per-node 1 "
        "or --processes 1; or CUDA_VISIBLE_DEVICES= to train on the CPU"
    )


def test_a_rank_beyond_the_gpus_is_refused_whatever_launched_it(rank):
    assert "must be at most its GPUs, 2, got 4. Cure" in refusal(rank, 2, 3)


def test_gpus_that_fbgemm_or_the_driver_cannot_use_are_refused(rank, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpus, "build_problem", lambda: "the wrong build")
    assert str(rank(0)) == "cpu"
    assert refusal(rank, 1) == "the wrong build"
    monkeypatch.setattr(gpus, "driver_problem", lambda: "an old driver")
    assert refusal(rank, 0) == "an old driver"
    monkeypatch.setattr(torch.version, "cuda", None)  # a torch that could not use it anyway
    assert str(rank(0)) == "cpu"


def test_an_environment_made_for_the_cpu_leaves_gpus_alone(rank, tmp_path, monkeypatch):
    (tmp_path / environment.CHOICE).write_text("cpu")
    monkeypatch.setattr(environment.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(gpus, "build_problem", lambda: "the wrong build")
    monkeypatch.setattr(gpus, "driver_problem", lambda: "an old driver")
    assert process_group.usable_gpus() == 0
