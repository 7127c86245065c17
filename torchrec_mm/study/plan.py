"""A recipe's runs: where each lies, what it is told, and in which order they can be made.

First each row is tried with every option of the recipe on the validation split, by one seed; then
it is trained on the whole of training by what was best, by every seed, and the test split is read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torchrec_mm.config import flag_words
from torchrec_mm.documents import read_json
from torchrec_mm.stages.jobs import Job
from torchrec_mm.study.recipe import EACH, NONE, Recipe, Row, VectorsOf
from torchrec_mm.study.vectors import name_of

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class DataOf:
    """A data set of the study: share of training, and whether a part of it validates."""

    share: float = 1.0
    validates: bool = False

    @property
    def name(self) -> str:
        return f"{'fit' if self.validates else 'train'}-{self.share:g}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe comes to on data and sets of vectors.

    data: folder of the data contract. vectors: sets by name; "own" is the first. root: the study's
    folder. first_seed: of each row's runs.
    """

    recipe: Recipe
    data: Path
    vectors: Mapping[str, Path]
    root: Path
    first_seed: int = 0

    @property
    def rows(self) -> dict[str, Row]:
        """The recipe's, those of each set of vectors told apart."""
        rows: dict[str, Row] = {}
        for name, row in self.recipe.rows.items():
            if row.vectors.of == EACH:
                rows |= {f"{name}, {each}": row for each in self.vectors}
            else:
                rows[name] = row
        return rows

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.recipe.seeds)

    def compared_with(self, name: str) -> list[str]:
        """The rows that a row is compared with."""
        control = self.rows[name].control or f"{name}/random"
        claimed = (other for above, other in self.recipe.claims if above == name)
        others = dict.fromkeys([*self.recipe.baselines, control, *claimed])
        return [other for other in others if other != name and other in self.rows]

    def derived(self) -> dict[Path, tuple[Path, VectorsOf]]:
        """Vectors to be made: the set and what is made of it, by folder."""
        found = {}
        for name, row in self.rows.items():
            given, folder = self._given(name, row), self.vectors_of(name)
            if folder is not None and folder != given:
                found[folder] = given, row.vectors
        return found

    def data_sets(self) -> dict[Path, DataOf]:
        """Data sets to be cut, by folder; training as it is needs none."""
        shares = {row.train for row in self.rows.values()}
        sets = [DataOf(share=share, validates=True) for share in shares] * self.is_tuned
        sets += [DataOf(share=share) for share in shares if share < 1]
        return {self.data_of(each): each for each in sets}

    @property
    def is_tuned(self) -> bool:
        return any(len(self.options(name)) > 1 for name in self.rows)

    def options(self, name: str) -> list[dict[str, Any]]:
        """The flags of the ranker that a row is tried with, its own in each; no two alike."""
        row = self.rows[name]
        options = [{**option, **row.ranker} for option in self.recipe.tune]
        return [each for i, each in enumerate(options) if each not in options[:i]]

    def make_jobs(self, *, tuning: bool) -> list[Job]:
        """MAKE of every row that has it, once for all that share it."""
        jobs: dict[Path, Job] = {}
        for name, row in self.rows.items():
            if "make" not in row.method or (tuning and len(self.options(name)) == 1):
                continue
            for seed in self.seeds[:1] if tuning else self.seeds:
                folder = self.make_dir(name, seed, tuning)
                flags = {"data": self.data_of(self._data(row, tuning)), **row.make}
                flags |= {"vectors": self.vectors_of(name), "seed": seed, "run_dir": folder}
                words = (*flag_words(flags), "--resume")
                jobs.setdefault(folder, Job((("train_make", words),), None))
        return list(jobs.values())

    def tuning_jobs(self) -> Iterator[Job]:
        """Each row with each of its options, where it has several."""
        for name in self.rows:
            options = self.options(name)
            for number, option in enumerate(options if len(options) > 1 else []):
                yield self._job(name, self.seeds[0], option, self.tuning_dir(name, number), True)

    def best(self, name: str) -> dict[str, Any]:
        """The option of a row with the highest AUC + GAUC on the validation split."""
        options = self.options(name)
        if len(options) == 1:
            return options[0]
        scores = []
        for number in range(len(options)):
            metrics = read_json(self.tuning_dir(name, number) / METRICS)
            scores.append((metrics["auc"] or 0.0) + (metrics["gauc"] or 0.0))
        return options[scores.index(max(scores))]

    def jobs(self, *, make: bool | None = None) -> Iterator[Job]:
        """Each row by each seed, once it is known what is best for it.

        ``make``: only the rows that join MAKE, or only those that need not wait for one.
        """
        for seed in self.seeds:  # so that all rows have one, should it be cut short
            for name, row in self.rows.items():
                if make in (None, "make" in row.method):
                    yield self.job(name, seed)

    def job(self, name: str, seed: int) -> Job:
        """The run of one row by one seed."""
        return self._job(name, seed, self.best(name), self.run_dir(name, seed), False)

    def run_dir(self, name: str, seed: int) -> Path:
        return self.root / "runs" / plain(name) / str(seed)

    def tuning_dir(self, name: str, number: int) -> Path:
        return self.root / "tuning" / plain(name) / str(number)

    def make_dir(self, name: str, seed: int, tuning: bool) -> Path:
        """Of the MAKE that a row joins; rows of equal vectors, flags and data share it."""
        row, vectors = self.rows[name], self.vectors_of(name)
        assert vectors is not None  # a row with MAKE has some
        said = "-".join(f"{flag}={json.dumps(value)}" for flag, value in row.make.items())
        data = self._data(row, tuning).name
        return (
            self.root
            / "make"
            / plain("-".join(filter(None, [vectors.name, data, said, str(seed)])))
        )

    def data_of(self, which: DataOf) -> Path:
        whole = which.share == 1 and not which.validates
        return self.data if whole else self.root / "data" / which.name

    def vectors_of(self, name: str) -> Path | None:
        """The folder of a row's vectors."""
        row = self.rows[name]
        if row.vectors.of == NONE:
            return None
        given, how = self._given(name, row), name_of(row.vectors)
        if how in (EACH, "own"):
            return given
        return self.root / "vectors" / plain(f"{given.name}-{how}")

    def _given(self, name: str, row: Row) -> Path:
        first = next(iter(self.vectors.values()))
        return self.vectors[name.rpartition(", ")[2]] if row.vectors.of == EACH else first

    def _data(self, row: Row, tuning: bool) -> DataOf:
        return DataOf(share=row.train, validates=tuning)

    def _job(
        self, name: str, seed: int, option: Mapping[str, Any], run_dir: Path, tuning: bool
    ) -> Job:
        row, vectors = self.rows[name], self.vectors_of(name)
        data = self.data_of(self._data(row, tuning))
        flags: dict[str, Any] = {"method": row.method, "data": data, "run_dir": run_dir, **option}
        flags |= {"vectors": vectors} if vectors else {}
        flags |= {"make": self.make_dir(name, seed, tuning)} if "make" in row.method else {}
        scored = {"run_dir": run_dir, "data": data, "predictions": run_dir / PREDICTIONS}
        commands: Sequence[tuple[str, Sequence[str]]] = (
            ("train_ranker", (*flag_words({**flags, "seed": seed}), "--resume")),
            ("evaluate", flag_words(scored)),
        )
        return Job(tuple(commands), run_dir / METRICS)


def plain(name: str) -> str:
    """A row's name as that of a folder."""
    return quote(name, safe="+=, ")
