"""Find the runs below a folder and read what they measured."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchrec_mm.errors import InputError

RETRIEVAL_METRICS = ("recall@1", "recall@10", "mrr", "hard_negative_accuracy")
OFF_THE_SHELF = "off-the-shelf"
MODALITIES = ("image", "text", "fused")


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
class PretrainingRun:
    """One retrieval.json: how well an encoder finds what was bought.

    metrics: by name of ``RETRIEVAL_METRICS``, None where not measured.
    modality: of the metrics, "" where the file does not say.
    modalities: the same metrics by modality, where the file has them.
    """

    name: str
    encoder: str
    modality: str
    metrics: dict[str, float | None]
    modalities: dict[str, dict[str, float | None]]


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
    rankers, curves, pretraining = [], [], []
    for path, files in _visible_folders(folder):
        name = str(path.relative_to(folder))
        epochs = _read_epochs(path / "metrics.jsonl") if "metrics.jsonl" in files else ()
        if "metrics.json" in files:
            rankers.append(_read_ranker(path / "metrics.json", name, epochs))
        elif epochs:
            curves.append(TrainingCurve(name, epochs))
        if "retrieval.json" in files:
            found = _read_retrieval(path / "retrieval.json", name)
            pretraining += [run for run in found if not _is_among(run, pretraining)]
    if not rankers and not pretraining:
        raise InputError(
            f"runs must hold a run with metrics.json or retrieval.json, found none in {folder}"
        )
    return Runs(tuple(rankers), tuple(curves), tuple(pretraining))


def _visible_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(path), files


def _read_ranker(file: Path, name: str, epochs: tuple[EpochAuc, ...]) -> RankerRun:
    raw = _read_object(file)
    method = _required(file, raw, "method", str)
    vectors = raw.get("vectors")
    if vectors is not None:
        vectors = {key: str(_required(file, vectors, key, str)) for key in ("encoder", "modality")}
        if vectors["encoder"] == "random" and not method.endswith("/random"):
            method += "/random"
    slices = raw.get("slices", {})
    if not isinstance(slices, dict) or not all(isinstance(s, dict) for s in slices.values()):
        raise InputError(f"{file} slices must be an object of objects, got {slices!r:.80}")
    return RankerRun(
        name=name,
        method=method,
        seed=_required(file, raw, "seed", int),
        auc=_number(file, raw, "auc"),
        gauc=_number(file, raw, "gauc"),
        log_loss=_number(file, raw, "log_loss"),
        vectors=vectors,
        slices={
            key: {metric: _number(file, value, metric) for metric in ("auc", "gauc", "impressions")}
            for key, value in slices.items()
        },
        epochs=epochs,
        **{
            key: _number(file, raw, key)
            for key in ("vector_coverage", "impressions", "users", "gauc_users")
        },
    )


def _read_retrieval(file: Path, name: str) -> Iterator[PretrainingRun]:
    """The encoder's figures, and under "off-the-shelf" those of the encoder it began as."""
    raw = _read_object(file)
    encoder = _required(file, raw, "encoder", str)
    yield _pretraining_run(file, name, encoder, raw)
    before = raw.get(OFF_THE_SHELF)
    if encoder != OFF_THE_SHELF and isinstance(before, dict):
        yield _pretraining_run(file, name, OFF_THE_SHELF, before)


def _pretraining_run(file: Path, name: str, encoder: str, raw: dict[str, Any]) -> PretrainingRun:
    nested = raw.get("modalities", raw)
    return PretrainingRun(
        name=name,
        encoder=encoder,
        modality=str(raw.get("modality", "")),
        metrics=_retrieval_metrics(file, raw),
        modalities={
            modality: _retrieval_metrics(file, nested[modality])
            for modality in MODALITIES
            if isinstance(nested, dict) and isinstance(nested.get(modality), dict)
        },
    )


def _is_among(run: PretrainingRun, others: Sequence[PretrainingRun]) -> bool:
    """Whether the same figures are known already: several runs may begin as one encoder."""
    return run.encoder == OFF_THE_SHELF and any(replace(run, name=o.name) == o for o in others)


def _retrieval_metrics(file: Path, raw: dict[str, Any]) -> dict[str, float | None]:
    return {metric: _number(file, raw, metric) for metric in RETRIEVAL_METRICS}


def _read_epochs(file: Path) -> tuple[EpochAuc, ...]:
    """Epoch lines in order; of an epoch that was run again after a resume, the last.

    A line cut short by a killed run is passed over, and NaN (one label only) means not measured.
    """
    epochs = {}
    for line in file.read_text(errors="replace").splitlines():
        if '"epoch"' not in line:
            continue
        try:
            raw = json.loads(line, parse_constant=lambda constant: None)
        except ValueError:
            continue
        if type(raw.get("epoch")) is int and ("train_auc" in raw or "test_auc" in raw):
            train, test = (_number(file, raw, f"{side}_auc") for side in ("train", "test"))
            epochs[raw["epoch"]] = EpochAuc(raw["epoch"], train, test)
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def _read_object(file: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise InputError(f"{file} must hold JSON numbers or null, got {constant}")

    try:
        raw = json.loads(file.read_text(errors="replace"), parse_constant=refuse)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{file} must be JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{file} must be a JSON object, got {raw!r:.80}")
    return raw


def _required(file: Path, raw: Any, key: str, kind: type) -> Any:
    value = raw.get(key) if isinstance(raw, dict) else None
    if type(value) is not kind:
        raise InputError(f"{file} {key} must be {kind.__name__}, got {value!r:.80}")
    return value


def _number(file: Path, raw: dict[str, Any], key: str) -> Any:
    value = raw.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InputError(f"{file} {key} must be a number or null, got {value!r:.80}")
    return value
