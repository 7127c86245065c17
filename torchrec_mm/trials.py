"""What ``parallel.trial`` found here, row by row of the doctor's report."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from torchrec_mm import gpus
from torchrec_mm.environment import choice, fbgemm_cure, has_nvidia_driver

# Rows of the report that only GPUs can have -> the trial that tells (parallel/trial.py).
ON_GPUS = {
    "train on GPUs": "tables",
    "tables in host memory": "tables in host memory",
    "Adam on tables": "Adam on tables",
    "fp16/bf16 between ranks": "group",
}

Problems = Mapping[tuple[str, str], str | None]


PATIENCE_S = 300.0  # a driver in a bad way may never answer


def tried() -> subprocess.CompletedProcess[str]:
    """What ``parallel.trial`` printed, in a process of its own, and how that ended."""
    roots = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])]
    command = [sys.executable, "-m", "torchrec_mm.parallel.trial"]
    command += ["cpu"] if choice() == "cpu" else []
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        said = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, *said)


def import_problem(trial: subprocess.CompletedProcess[str]) -> str | None:
    """Why the releases do not load together, and the cure, in one line; None if they do."""
    if "loaded" in trial.stdout.splitlines():
        return None
    reason = (trial.stderr.strip().splitlines() or [f"exit status {trial.returncode}"])[-1]
    return f"torch, torchrec and fbgemm must load together, got {reason}. Cure: {fbgemm_cure()}"


def problems_of(trial: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str | None]:
    """By trial and device, what went wrong; of one that has no result, how the process ended."""
    problems: dict[tuple[str, str], str | None] = {}
    for line in trial.stdout.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            ended = f"the process that tries ended with status {trial.returncode}"
            problems[told["trial"], told["device"]] = told.get("problem", ended)
    return problems


def groups(problems: Problems) -> dict[str, str]:
    """Whether ranks can talk: a group of one has tried on each device."""
    return {"gloo": in_words(problems, "group", "cpu"), "NCCL": in_words(problems, "group", "cuda")}


def training(problems: Problems) -> dict[str, str]:
    """What tables can do on each kind of device."""
    on_gpus = {row: in_words(problems, trial, "cuda") for row, trial in ON_GPUS.items()}
    return {"train on the CPU": in_words(problems, "tables", "cpu")} | on_gpus


def in_words(problems: Problems, trial: str, kind: str) -> str:
    """Yes where a trial worked on every device of a kind, else which does not, and why."""
    found = {d: p for (name, d), p in problems.items() if name == trial and d.startswith(kind)}
    if not found:
        return f"no: {without_gpus()}"
    wrong = [f"{d}: {why_not(d, problem)}" for d, problem in found.items() if problem]
    if wrong:
        return f"no: {'; '.join(wrong)}"
    return f"yes, {len(found)}" if kind == "cuda" and trial == "tables" else "yes"


def why_not(device: str, problem: str) -> str:
    """What stands behind a problem, where that is known."""
    import torch

    if device.startswith("cuda"):
        return gpus.capability_problem(torch.cuda.get_device_capability(device)) or problem
    return problem


def without_gpus() -> str:
    """Why there is none to try."""
    if choice() == "cpu":
        return "FBGEMM=cpu was chosen"
    if gpus.are_hidden() and has_nvidia_driver():
        return "CUDA_VISIBLE_DEVICES hides them"
    return gpus.driver_problem() or "no NVIDIA GPU"
