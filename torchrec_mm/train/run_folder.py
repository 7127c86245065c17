"""The folder that a training command creates: what was asked for, what happened, what came out.

config.yaml     the resolved config, readable by --config
model.json      the model's shape and the data it fits, for whoever loads the checkpoint
metrics.jsonl   one JSON object a line, steps and epochs
checkpoint/     the latest torch.distributed.checkpoint
metrics.json    written by apps.evaluate
"""

import json
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from torchrec_mm.config import to_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, refuse_existing, write_json
from torchrec_mm.parallel.process_group import Worker


class RunFolder:
    """A run on disk; only the first rank writes."""

    def __init__(self, path: Path, worker: Worker) -> None:
        self.path = path
        self.worker = worker

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @classmethod
    def create(cls, path: Path, config: Any, worker: Worker, resume: bool) -> "RunFolder":
        """Start a run, or go on with one.

        Call it when the inputs have been read and found good, so that bad input leaves no folder.

        Raises:
            InputError: the folder holds something and ``resume`` is False, or it holds a run of
                another config.
        """
        text = to_yaml(config)
        written = path / "config.yaml"
        if resume and written.is_file():
            _check_same_config(path, yaml.safe_load(written.read_text()), yaml.safe_load(text))
        else:
            refuse_existing(path)
        dist.barrier()
        run = cls(path, worker)
        if worker.is_first and not written.is_file():
            with new_file(written) as aside:
                aside.write_text(text)
        dist.barrier()
        return run

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        if self.worker.is_first:
            with (self.path / "metrics.jsonl").open("a") as lines:
                lines.write(json.dumps(values) + "\n")

    def forget_epochs_after(self, epoch: int) -> None:
        """Drop the lines of metrics.jsonl that an interrupted epoch left; it is run again.

        Args:
            epoch: the last epoch that the checkpoint holds, counted from 1; 0 drops every line.
        """
        log = self.path / "metrics.jsonl"
        if not self.worker.is_first or not log.is_file():
            return
        lines = log.read_text().splitlines(keepends=True)
        ends = [i for i, line in enumerate(lines) if _epoch_of(line) == epoch]
        with new_file(log) as aside:
            aside.write_text("".join(lines[: ends[-1] + 1 if ends else 0]))

    def write_model(self, model: dict[str, Any]) -> None:
        """Write model.json."""
        if self.worker.is_first:
            write_json(self.path / "model.json", model)


def read_run(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the model description of a finished run.

    Args:
        path: the run folder. kind: what model.json must call itself, "make" or "ranker".

    Raises:
        InputError: not such a run, or one without a checkpoint.
    """
    if not (path / "config.yaml").is_file() or not (path / "model.json").is_file():
        raise InputError(
            f"{path} must be the folder of a {kind} run: no config.yaml and model.json"
        )
    model = json.loads((path / "model.json").read_text())
    if model.get("kind") != kind:
        raise InputError(f"{path} must be a {kind} run, got a {model.get('kind')} run")
    if not (path / "checkpoint").is_dir():
        raise InputError(f"{path} must hold a checkpoint: training has not finished an epoch")
    return yaml.safe_load((path / "config.yaml").read_text()), model


def _check_same_config(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if name not in ("resume", "run_dir") and before.get(name) != value:
            raise InputError(
                f"{name} must stay {before.get(name)!r} to resume {path}, got {value!r}"
            )


def _epoch_of(line: str) -> int | None:
    """The epoch that a line ends; None for a step, and for a line that was cut short."""
    try:
        return json.loads(line).get("epoch")
    except json.JSONDecodeError:
        return None
