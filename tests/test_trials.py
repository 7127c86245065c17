"""What trials of each device say in the doctor's report; the devices are made up."""

import json
import subprocess
import sys

import pytest
import torch

from torchrec_mm import environment, gpus, trials
from torchrec_mm.trials import import_problem, problems_of, training


def ended(*results: tuple[str, str, str | None], status: int = 0) -> subprocess.CompletedProcess:
    """A process that tried this, (trial, device, problem), and announced no other trial."""
    announced = [{"trial": name, "device": device} for name, device, _ in results]
    told = [announced[i] | {"problem": p} for i, (_, _, p) in enumerate(results) if p != "crash"]
    lines = ["loaded", *map(json.dumps, announced), "noise", *map(json.dumps, told)]
    return subprocess.CompletedProcess([], status, "\n".join(lines), "")


def on_gpus(**problems: str | None) -> list[tuple[str, str, str | None]]:
    """All trials on two GPUs that work, but for those of ``problems`` on the second."""
    names = ("tables", "tables in host memory", "Adam on tables", "group")
    return [
        *((name, "cpu", None) for name in ("tables", "group")),
        *((name, "cuda:0", None) for name in names),
        *((name, "cuda:1", problems.get(name.partition(" ")[0])) for name in names),
    ]


@pytest.fixture(autouse=True)
def no_gpus_here(monkeypatch):
    monkeypatch.setattr(gpus, "driver_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_where_all_trials_work_it_is_yes_and_how_many():
    problems = problems_of(ended(*on_gpus()))
    assert training(problems) == {
        "train on the CPU": "yes",
        "train on GPUs": "yes, 2",
        "tables in host memory": "yes",
        "Adam on tables": "yes",
        "fp16/bf16 between ranks": "yes",
    }
    assert trials.groups(problems) == {"gloo": "yes", "NCCL": "yes"}


def test_the_device_that_fails_is_named_with_what_failed():
    problems = problems_of(ended(*on_gpus(group="DistBackendError: no shared memory")))
    assert trials.groups(problems)["NCCL"] == "no: cuda:1: DistBackendError: no shared memory"
    assert training(problems)["train on GPUs"] == "yes, 2"


def test_a_gpu_that_is_too_old_is_told_so_instead_of_how_it_failed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    problems = problems_of(ended(*on_gpus(tables="AcceleratorError: no kernel image")))
    said = training(problems)["train on GPUs"]
    assert said.startswith("no: cuda:1: compute capability must be ") and "got 7.5. Cure" in said


def test_trials_that_a_crash_left_without_result_did_not_work():
    tried = [("tables", "cpu", None), ("tables", "cuda:0", "crash"), ("group", "cuda:0", "crash")]
    rows = training(problems_of(ended(*tried, status=-6)))
    wanted = "no: cuda:0: the process that tries ended with status -6"
    assert rows["train on the CPU"] == "yes"
    assert rows["train on GPUs"] == rows["fp16/bf16 between ranks"] == wanted


@pytest.mark.parametrize(
    ("chosen", "hidden", "driver", "why"),
    [
        (None, False, None, "no NVIDIA GPU"),
        (None, False, "NVIDIA driver must be 580", "NVIDIA driver must be 580"),
        (None, True, None, "CUDA_VISIBLE_DEVICES hides them"),
        ("cpu", False, None, "FBGEMM=cpu was chosen"),
    ],
)
def test_why_there_is_no_gpu_to_try_is_told(monkeypatch, chosen, hidden, driver, why):
    monkeypatch.setattr(trials, "choice", lambda: chosen)
    monkeypatch.setattr(trials, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(gpus, "are_hidden", lambda: hidden)
    monkeypatch.setattr(gpus, "driver_problem", lambda: driver)
    problems = problems_of(ended(("tables", "cpu", None), ("group", "cpu", None)))
    assert {training(problems)[row] for row in trials.ON_GPUS} == {f"no: {why}"}


def test_the_cuda_build_by_choice_is_sent_to_a_host_with_a_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: False)
    (tmp_path / environment.CHOICE).write_text("cuda")
    failed = subprocess.CompletedProcess([], 1, "", "OSError: libnvidia-ml.so.1: cannot open")
    assert import_problem(failed) == (
        "torch, torchrec and fbgemm must load together, got OSError: libnvidia-ml.so.1: cannot "
        "open. Cure: to work where an NVIDIA driver is, or make install FBGEMM=cpu"
    )


def test_a_driver_that_never_answers_does_not_keep_the_doctor(monkeypatch):
    monkeypatch.setattr(trials, "PATIENCE_S", 0.0)
    late = trials.tried()
    assert late.returncode == -9
    assert "exit status -9. Cure: " in import_problem(late)


def test_an_environment_made_for_the_cpu_tries_no_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(trials, "choice", lambda: "cpu")
    popen = subprocess.Popen
    monkeypatch.setattr(
        trials.subprocess,
        "Popen",
        lambda command, **more: asked.append(command) or popen([sys.executable, "-c", ""], **more),
    )
    trials.tried()
    assert asked[0][1:] == ["-m", "torchrec_mm.parallel.trial", "cpu"]
