"""Read retrieval.json: how well an encoder finds what was bought."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.reporting.json_files import number, read_object, required

RETRIEVAL_FILE, CONFIG_FILE = "retrieval.json", "config.yaml"
FOUND = ("recall@1", "recall@10", "recall@100", "mrr", "hard_negative_accuracy")
SPHERE = ("alignment", "uniformity", "mean_cosine")
RETRIEVAL_METRICS = FOUND + SPHERE
TITLE_METRICS = ("recall@1", "recall@10", "mrr")
OFF_THE_SHELF = "off-the-shelf"

Figures = dict[str, float | None]


@dataclass(frozen=True)
class PretrainingRun:
    """One encoder as one retrieval.json judges it.

    name: folder relative to where the search began. seed: of the config.yaml beside it, None where
    that names none. metrics: by name of ``RETRIEVAL_METRICS``, None where not measured; of
    the fused vectors or the only ones. spaces: the same by space. title_to_picture: by name of
    ``TITLE_METRICS``, empty where not measured. categories: by attribute and value "recall@10" and
    "searches", the most searched value first.
    """

    name: str
    encoder: str
    seed: int | None
    searches: int | None
    items: int | None
    metrics: Figures
    spaces: dict[str, Figures]
    title_to_picture: Figures
    categories: dict[str, dict[str, Figures]]


def read_retrieval(folder: Path, name: str) -> Iterator[PretrainingRun]:
    """The encoder's figures, and under "off-the-shelf" those of the encoder it began as.

    Raises:
        InputError: retrieval.json, or config.yaml beside it, is not what it should be.
    """
    file = folder / RETRIEVAL_FILE
    raw = read_object(file)
    encoder, seed = required(file, raw, "encoder", str), _read_seed(folder / CONFIG_FILE)
    yield _pretraining_run(file, name, encoder, seed, raw)
    before = raw.get(OFF_THE_SHELF)
    if encoder != OFF_THE_SHELF and isinstance(before, dict):
        yield _pretraining_run(file, name, OFF_THE_SHELF, seed, before)


def is_among(run: PretrainingRun, others: Sequence[PretrainingRun]) -> bool:
    """Whether the same figures are known already: several runs may begin as one encoder.

    Sums over another number of threads round otherwise: figures are the same to 1e-9.
    """
    return run.encoder == OFF_THE_SHELF and any(
        _rounded(replace(run, name=other.name)) == _rounded(other) for other in others
    )


def _rounded(run: PretrainingRun) -> PretrainingRun:
    """The run with its figures to nine digits after the point."""

    def short(figures: Figures) -> Figures:
        return {
            name: round(value, 9) if isinstance(value, float) else value
            for name, value in figures.items()
        }

    spaces = {space: short(figures) for space, figures in run.spaces.items()}
    return replace(
        run, metrics=short(run.metrics), spaces=spaces, title_to_picture=short(run.title_to_picture)
    )


def _pretraining_run(
    file: Path, name: str, encoder: str, seed: int | None, raw: dict[str, Any]
) -> PretrainingRun:
    titles, categories = raw.get("title_to_picture"), _objects(file, raw, "categories")
    if titles is not None and not isinstance(titles, dict):
        raise InputError(f"{file} title_to_picture must be an object, got {titles!r:.80}")
    return PretrainingRun(
        name=name,
        encoder=encoder,
        seed=seed,
        searches=number(file, raw, "searches"),
        items=number(file, raw, "items"),
        metrics=_figures(file, raw, RETRIEVAL_METRICS),
        spaces={
            space: _figures(file, each, RETRIEVAL_METRICS)
            for space, each in _objects(file, raw, "spaces").items()
        },
        title_to_picture={} if titles is None else _figures(file, titles, TITLE_METRICS),
        categories={
            attribute: {
                value: _figures(file, each, ("recall@10", "searches"))
                for value, each in _objects(file, categories, attribute).items()
            }
            for attribute in categories
        },
    )


def _objects(file: Path, raw: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    value = raw.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise InputError(f"{file} {key} must be an object of objects, got {value!r:.80}")
    return value


def _figures(file: Path, raw: dict[str, Any], names: Sequence[str]) -> Figures:
    return {name: number(file, raw, name) for name in names}


def _read_seed(file: Path) -> int | None:
    if not file.is_file():
        return None
    raw = read_yaml(file)
    seed = raw.get("seed") if isinstance(raw, dict) else None
    if seed is not None and type(seed) is not int:
        raise InputError(f"{file} seed must be int, got {seed!r:.80}")
    return seed
