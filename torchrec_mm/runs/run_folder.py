"""The folder that a training command creates: what was asked for, what happened, what came out.

config.yaml       the resolved config, readable by --config; its paths are absolute
environment.json  versions, code, command, hosts and devices of each start
model.json        the model's shape and the data it fits, for whoever loads a checkpoint
plan.json         how each table is sharded
metrics.jsonl     one JSON object a line, steps and epochs
checkpoints/      step-<steps>/, each a torch.distributed.checkpoint
tensorboard/      figures of each window of steps
logs/             rank-<rank>.log, what each rank logged and how it ended
deltas/           of a run that follows requests, what each published window changed
trace.json        the profiler's, where it was asked for
metrics.json      written by apps.evaluate

A ranker's also holds vocabularies.safetensors and item_frequency.safetensors, an encoder's
retrieval.json, encoder.json and encoder.safetensors.

Inputs may have moved when a run is resumed: name them anew, and config.yaml follows. What they
hold must be the same, by model.json: the requests' vocabulary and sizes, the item vectors' origin,
the packed content's fingerprint. A MAKE run must be of the same shape and vectors; its weights
count until the first checkpoint.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from torchrec_mm.config import to_yaml
from torchrec_mm.documents import read_json, read_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, refuse_existing, remove_unfinished, write_json
from torchrec_mm.parallel.process_group import Worker, on_first_rank
from torchrec_mm.runs.checkpoint_folders import Checkpoint, list_checkpoints
from torchrec_mm.runs.environment_log import log_environment
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.rank_log import rank_log
from torchrec_mm.targets import check_working_folder

CHECKPOINTS = "checkpoints"

# Flags of inputs, which may have moved when a run is resumed.
INPUTS = ("data", "encoded", "packed", "vectors", "make", "follow", "start_from", "items")

# Other flags that a resumed run may be given anew.
MAY_CHANGE = (
    *("resume", "run_dir", "allow_keys", "checkpoint_steps", "keep_checkpoints"),
    *("log_every_steps", "hang_timeout_s", "stop_timeout_s", "profile_steps"),
    *("vector_storage", "num_workers", "once", "least_gauc", "most_miscalibration"),
    *("tf32", "compile"),
)

# What runs did that began before there was such a flag.
THEN = {
    **{"folds": 1, "effects": 0, "width": 128, "left_out": [], "window_s": 3600},
    "stream": "requests",
}


class RunFolder:
    """A run on disk; only the first rank writes, but for the logs.

    A context around the work: each rank logs into logs/ while it lasts, see ``rank_log``.
    """

    def __init__(self, path: Path, worker: Worker) -> None:
        self.path = path
        self.worker = worker
        self._log = ExitStack()
        self._moved: dict[str, Any] = {}  # inputs that are not where config.yaml says
        self._goes_on = False

    def __enter__(self) -> "RunFolder":
        self._log.enter_context(rank_log(self.path / "logs", self.worker))
        return self

    def __exit__(self, *raised: Any) -> None:
        self._log.__exit__(*raised)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def latest(self) -> Checkpoint | None:
        """Where a run that is resumed goes on; None before the first checkpoint."""
        found = list_checkpoints(self.checkpoints)
        return found[-1] if found else None

    @property
    def config_files(self) -> list[Path]:
        """The small files without which a checkpoint does not say what it is."""
        paths = [self.path / name for name in ("config.yaml", "model.json", "plan.json")]
        return [path for path in paths if path.is_file()]

    @classmethod
    def create(cls, path: Path, config: Any, worker: Worker, resume: bool) -> "RunFolder":
        """Start a run, or go on with one. Collective.

        Call it when the inputs have been read and found good, so that bad input leaves no folder;
        what takes long may be read within ``taken_back``.

        Raises:
            InputError: the folder holds something and ``resume`` is False, or it holds a run of
                another config.
        """
        values = yaml.safe_load(to_yaml(with_absolute_paths(config)))
        run = cls(path, worker)
        goes_on = run._goes_on = resume and (path / "config.yaml").is_file()
        if goes_on:
            before = THEN | read_yaml(path / "config.yaml")
            check_same(path, before, values, may_change=(*MAY_CHANGE, *INPUTS))
            now = {name: values[name] for name in INPUTS if name in values}
            run._moved = {name: at for name, at in now.items() if at != before.get(name)}
        else:
            refuse_existing(path)
        dist.barrier()
        if not goes_on:
            run._write_config(values)
        log_environment(path / "environment.json", worker)
        dist.barrier()
        return run

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """For the block: an InputError, as of bad input, takes a folder away that was new."""
        try:
            yield
        except InputError:
            if self.worker.is_first and not self._goes_on:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        if self.worker.is_first:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(values) + "\n")

    def drop_records_after(self, position: Position) -> None:
        """Drop what metrics.jsonl says after ``position``: a run resumed there writes it again."""
        log = self.path / "metrics.jsonl"
        if not self.worker.is_first or not log.is_file():
            return
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        with new_file(log) as aside:
            kept = "".join(line for line in lines if _is_before(line, position))
            aside.write_text(kept, encoding="utf-8")

    def write_model(self, model: dict[str, Any]) -> None:
        """Write model.json or find the same, config.yaml follows; InputError for another model."""
        path = self.path / "model.json"
        if path.is_file():
            check_same(self.path, read_json(path), json.loads(json.dumps(model)))
        dist.barrier()
        if self.worker.is_first and not path.is_file():
            write_json(path, model)
        if self._moved:
            config = read_yaml(self.path / "config.yaml")
            self._write_config(config | self._moved)

    def _write_config(self, values: dict[str, Any]) -> None:
        if self.worker.is_first:
            with new_file(self.path / "config.yaml") as aside:
                aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def check_run_dir(path: Path, resume: bool, reads: Iterable[Path | None]) -> None:
    """Try whether a run can be made there, or gone on with, before its inputs are read. Collective.

    Args:
        path: the folder. resume: whether what is in it may be gone on with.
        reads: folders that the run reads; it must not lie in one.

    Raises:
        InputError: on every rank.
    """

    def check() -> None:
        if resume:
            remove_unfinished(path)
        if not (resume and (path / "config.yaml").is_file()):
            refuse_existing(path)
        check_working_folder(path, "run_dir", reads, asides=True)

    on_first_rank(check)


def read_run(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the model description of a run.

    Args:
        path: the run folder. kind: what model.json must call itself, "make" or "ranker".

    Raises:
        InputError: not such a run.
    """
    if not (path / "config.yaml").is_file() or not (path / "model.json").is_file():
        rule = f"{path} must be the folder of a {kind} run"
        raise InputError(f"{rule}: no config.yaml and model.json")
    model = read_json(path / "model.json")
    if model.get("kind") != kind:
        raise InputError(f"{path} must be a {kind} run, got a {model.get('kind')} run")
    return read_yaml(path / "config.yaml"), model


def with_absolute_paths(config: Any) -> Any:
    """The config with the same paths, understood from any working directory."""
    paths = {
        field.name: Path(os.path.abspath(value))  # symbolic links stay: what they name may move
        for field in fields(config)
        if isinstance(value := getattr(config, field.name), Path)
    }
    return replace(config, **paths)


def check_same(
    path: Path, before: dict[str, Any], now: dict[str, Any], may_change: Sequence[str] = ()
) -> None:
    """InputError, naming the field, unless ``now`` says what the run ``path`` said ``before``."""
    for name, value in now.items():
        if name not in may_change and before.get(name) != value:
            rule = f"{name} must stay {before.get(name)!r} to resume {path}"
            raise InputError(f"{rule}, got {value!r}")


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
