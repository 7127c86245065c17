"""The folder that a training command creates: what was asked for, what happened, what came out.

config.yaml     the resolved config, readable by --config
model.json      the model's shape and the data it fits, for whoever loads a checkpoint
plan.json       how each table is sharded
metrics.jsonl   one JSON object a line, steps and epochs
checkpoints/    step-<steps>/, each a torch.distributed.checkpoint
tensorboard/    figures of each window of steps
trace.json      the profiler's, where it was asked for
metrics.json    written by apps.evaluate
"""

import json
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from torchrec_mm.config import to_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, refuse_existing, remove_unfinished, write_json
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.train.position import Position

CHECKPOINTS = "checkpoints"

# Flags that a resumed run may be given anew.
MAY_CHANGE = (
    *("resume", "run_dir", "allow_keys", "checkpoint_steps", "keep_checkpoints"),
    *("log_every_steps", "hang_timeout_s", "stop_timeout_s", "profile_steps"),
    *("vector_storage", "num_workers"),
)


class RunFolder:
    """A run on disk; only the first rank writes."""

    def __init__(self, path: Path, worker: Worker) -> None:
        self.path = path
        self.worker = worker

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def companions(self) -> list[Path]:
        """The small files without which a checkpoint does not say what it is."""
        paths = [self.path / name for name in ("config.yaml", "model.json", "plan.json")]
        return [path for path in paths if path.is_file()]

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
        if resume and worker.is_first:
            remove_unfinished(path)
        dist.barrier()
        if resume and written.is_file():
            _check_same(path, yaml.safe_load(written.read_text()), yaml.safe_load(text))
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

    def forget_after(self, position: Position) -> None:
        """Drop the lines of metrics.jsonl that a resumed run writes again.

        Args:
            position: of the checkpoint; the beginning drops every line.
        """
        log = self.path / "metrics.jsonl"
        if not self.worker.is_first or not log.is_file():
            return
        lines = log.read_text().splitlines(keepends=True)
        with new_file(log) as aside:
            aside.write_text("".join(line for line in lines if _is_before(line, position)))

    def write_model(self, model: dict[str, Any]) -> None:
        """Write model.json, or find the same in it.

        Raises:
            InputError: the run that is resumed is of another model, or of other data.
        """
        path = self.path / "model.json"
        if path.is_file():
            _check_same(self.path, json.loads(path.read_text()), json.loads(json.dumps(model)))
        dist.barrier()
        if self.worker.is_first and not path.is_file():
            write_json(path, model)


def read_run(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the model description of a run.

    Args:
        path: the run folder. kind: what model.json must call itself, "make" or "ranker".

    Raises:
        InputError: not such a run.
    """
    if not (path / "config.yaml").is_file() or not (path / "model.json").is_file():
        raise InputError(
            f"{path} must be the folder of a {kind} run: no config.yaml and model.json"
        )
    model = json.loads((path / "model.json").read_text())
    if model.get("kind") != kind:
        raise InputError(f"{path} must be a {kind} run, got a {model.get('kind')} run")
    return yaml.safe_load((path / "config.yaml").read_text()), model


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if name not in MAY_CHANGE and before.get(name) != value:
            raise InputError(
                f"{name} must stay {before.get(name)!r} to resume {path}, got {value!r}"
            )


def _is_before(line: str, position: Position) -> bool:
    """Whether a line is of a step or an epoch that the checkpoint holds; False if cut short."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return False
    is_begun = position.step > 0  # else the run begins anew, with what it writes before any step
    return (
        is_begun
        and values.get("step", 0) <= position.step
        and values.get("epoch", 0) <= position.epoch
    )
