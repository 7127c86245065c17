"""The folder of a pre-training run: config, log, checkpoint; what is there already, and resuming.

The checkpoint is one file, replaced in one step after each epoch, so a run killed at any moment
continues from the last finished epoch.
"""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, refuse_existing

CONFIG_FILE, LOG_FILE, CHECKPOINT_FILE = "config.yaml", "metrics.jsonl", "checkpoint.pt"
RETRIEVAL_FILE = "retrieval.json"


def check_startable(run_dir: Path, config_yaml: str, resume: bool) -> None:
    """Refuse to start over an existing run, or to continue one with another config.

    Raises:
        InputError: ``run_dir`` holds something and ``resume`` is False, or holds no run, or a run
            with a flag of another value.
    """
    if not resume or not run_dir.exists() or not any(run_dir.iterdir()):
        refuse_existing(run_dir)
        return
    try:
        before = yaml.safe_load((run_dir / CONFIG_FILE).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"run_dir must hold a run to resume, got {run_dir}: {error}") from error
    now = yaml.safe_load(config_yaml)
    for name, value in now.items():
        if name not in ("resume", "run_dir") and before.get(name) != value:
            raise InputError(
                f"{name} must stay as the run began, {before.get(name)}, to resume it, got {value}"
            )


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and strings; replaces the checkpoint before in one step."""
    with new_file(run_dir / CHECKPOINT_FILE) as aside:
        torch.save(state, aside)


def load_checkpoint(run_dir: Path, device: torch.device) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote, or None before the first epoch's end.

    Raises:
        InputError: the file is not a whole checkpoint.
    """
    path = run_dir / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise InputError(f"{path} must be a whole checkpoint: {error}") from error


class Log:
    """metrics.jsonl: one JSON object a line, on disk as soon as it is added."""

    def __init__(self, run_dir: Path, finished_epochs: int) -> None:
        """Continue the log after ``finished_epochs``; lines of a later, broken-off epoch go."""
        path = run_dir / LOG_FILE
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= finished_epochs]
        with new_file(path) as aside:
            aside.write_text("".join(f"{line}\n" for line in kept))
        self._path = path

    def add(self, values: dict[str, Any]) -> None:
        """Append one line; ``values`` has an "epoch"."""
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def _epoch_of(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except ValueError:  # a line that was cut off by a kill
        return float("inf")
