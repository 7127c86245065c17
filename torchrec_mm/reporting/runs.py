"""Find the runs below a folder and read what they measured."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.errors import InputError
from torchrec_mm.reporting.json_files import number, read_object, required
from torchrec_mm.reporting.retrieval_files import (
    RETRIEVAL_FILE,
    PretrainingRun,
    is_among,
    read_retrieval,
)


@dataclass(frozen=True)
class EpochAuc:
    """One line of metrics.jsonl written at the end of an epoch; AUC of both sides, or None."""

    epoch: int
    train_auc: float | None
    test_auc: float | None


@dataclass(frozen=True)
class RankerRun:
    """One evaluated ranker: its metrics.json, checked.

    name: folder relative to where the search began.
    vectors: {"encoder", "modality"}, None for a method without item vectors.
    epochs: AUC by epoch, empty when the run wrote none.
    """

    name: str
    method: str
    seed: int
    auc: float | None
    gauc: float | None
    log_loss: float | None
    vectors: dict[str, str] | None
    slices: dict[str, dict[str, Any]]
    epochs: tuple[EpochAuc, ...]
    vector_coverage: float | None = None
    impressions: int | None = None
    users: int | None = None
    gauc_users: int | None = None


@dataclass(frozen=True)
class TrainingCurve:
    """AUC by epoch of a run that was not evaluated, such as MAKE's own training."""

    name: str
    epochs: tuple[EpochAuc, ...]


@dataclass(frozen=True)
class Runs:
    """Everything found, in order of folder names."""

    rankers: tuple[RankerRun, ...]
    curves: tuple[TrainingCurve, ...]
    pretraining: tuple[PretrainingRun, ...]


def find_runs(folder: Path) -> Runs:
    """Read every metrics.json, retrieval.json and metrics.jsonl below ``folder``.

    Hidden folders are passed over: they are runs that are still being written.

    Raises:
        InputError: no such folder, no run in it, or a file that is not what it should be.
    """
    if not folder.is_dir():
        raise InputError(f"runs must be a folder that holds run folders, got {folder}")
    rankers: list[RankerRun] = []
    curves: list[TrainingCurve] = []
    pretraining: list[PretrainingRun] = []
    for path, files in _visible_folders(folder):
        name = str(path.relative_to(folder))
        epochs = _read_epochs(path / "metrics.jsonl") if "metrics.jsonl" in files else ()
        if "metrics.json" in files:
            rankers.append(_read_ranker(path / "metrics.json", name, epochs))
        elif epochs:
            curves.append(TrainingCurve(name, epochs))
        if RETRIEVAL_FILE in files:
            found = read_retrieval(path, name)
            pretraining += [run for run in found if not is_among(run, pretraining)]
    if not rankers and not pretraining:
        rule = "runs must hold a run with metrics.json or retrieval.json"
        raise InputError(f"{rule}, found none in {folder}")
    return Runs(tuple(rankers), tuple(curves), tuple(pretraining))


def _visible_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(path), files


def _read_ranker(file: Path, name: str, epochs: tuple[EpochAuc, ...]) -> RankerRun:
    raw = read_object(file)
    method = required(file, raw, "method", str)
    vectors = raw.get("vectors")
    if vectors is not None:
        vectors = {key: str(required(file, vectors, key, str)) for key in ("encoder", "modality")}
        if vectors["encoder"] == "random" and not method.endswith("/random"):
            method += "/random"
    slices = raw.get("slices", {})
    if not isinstance(slices, dict) or not all(isinstance(s, dict) for s in slices.values()):
        raise InputError(f"{file} slices must be an object of objects, got {slices!r:.80}")
    return RankerRun(
        name=name,
        method=method,
        seed=required(file, raw, "seed", int),
        auc=number(file, raw, "auc"),
        gauc=number(file, raw, "gauc"),
        log_loss=number(file, raw, "log_loss"),
        vectors=vectors,
        slices={
            key: {metric: number(file, value, metric) for metric in ("auc", "gauc", "impressions")}
            for key, value in slices.items()
        },
        epochs=epochs,
        **{
            key: number(file, raw, key)
            for key in ("vector_coverage", "impressions", "users", "gauc_users")
        },
    )


def _read_epochs(file: Path) -> tuple[EpochAuc, ...]:
    """Epoch lines in order; of an epoch that was run again after a resume, the last.

    A line cut short by a killed run is passed over, and NaN (one label only) means not measured.
    """
    epochs = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if '"epoch"' not in line:
            continue
        try:
            raw = json.loads(line, parse_constant=lambda constant: None)
        except ValueError:
            continue
        if type(raw.get("epoch")) is int and ("train_auc" in raw or "test_auc" in raw):
            train, test = (number(file, raw, f"{side}_auc") for side in ("train", "test"))
            epochs[raw["epoch"]] = EpochAuc(raw["epoch"], train, test)
    return tuple(epochs[epoch] for epoch in sorted(epochs))
