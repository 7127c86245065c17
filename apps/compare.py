"""Every method of phase two, on several sets of item vectors and seeds: the table's runs.

python -m apps.compare --data movielens --vectors "[vectors/text,vectors/image]" \
    --control vectors/random --run_dir runs/movielens
python -m apps.report --runs runs/movielens --run_dir runs/movielens --data movielens
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.stages.jobs import Job, run_side_by_side
from torchrec_mm.targets import check_working_folder

WITHOUT_VECTORS = ("bias", "id")
WITH_VECTORS = ("vector", "simscore", "simtier", "make", "simtier+make")
CONTROL = "simtier+make"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Train and evaluate all methods; each run is what apps.train_ranker does by its defaults.

    Runs that are finished already are skipped, so an interrupted comparison goes on.
    """

    data: Path
    """Folder that holds items/ and requests/."""
    vectors: tuple[Path, ...]
    """Folders of item vectors, each of another name."""
    control: Path
    """Folder of random item vectors, for the control."""
    run_dir: Path
    """Folder to create, with one run folder for each method, set of vectors and seed."""
    seeds: int = 2
    """Runs of each method."""
    seed: int = 0
    """Of the first run of each method."""
    processes: int = min(os.cpu_count() or 1, 8)
    """Rankers trained side by side, one thread each."""
    id_epochs: int = 5
    """Epochs of a further run of method id, where one sees it overfit."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "seeds", "processes", "id_epochs")
        names = [folder.name for folder in (*self.vectors, self.control)]
        if len(set(names)) < len(names):
            raise ValueError(f"vectors and control must differ in name, got {', '.join(names)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(CompareConfig, argv)
    check_working_folder(config.run_dir, "run_dir")
    without_make, with_make = (ranker_jobs(config, make=make) for make in (False, True))
    run_side_by_side([*make_jobs(config), *without_make], config.processes)
    run_side_by_side([*with_make], config.processes)


def make_jobs(config: CompareConfig) -> Iterator[Job]:
    """MAKE on each set of vectors, the control's included."""
    for vectors in (*config.vectors, config.control):
        for seed in seeds(config):
            run_dir = make_dir(config.run_dir, vectors, seed)
            flags = ("--data", config.data, "--vectors", vectors, "--run_dir", run_dir)
            command = ("train_make", words(*flags, "--seed", seed, "--test_auc", "--resume"))
            yield Job((command,), result=None)


def ranker_jobs(config: CompareConfig, *, make: bool) -> Iterator[Job]:
    """Every method that takes a run of MAKE, or every other one, the longest run first."""
    if not make:
        run_dir = config.run_dir / f"id-epochs-{config.seed}"
        flags = ("--method", "id", "--data", config.data, "--run_dir", run_dir)
        options = ("--seed", config.seed, "--epochs", config.id_epochs, "--test_auc", "--resume")
        yield Job((("train_ranker", words(*flags, *options)),), result=None)
    for seed in seeds(config):
        for method in WITHOUT_VECTORS if not make else ():
            yield ranker_job(config, method, None, seed)
        for vectors in config.vectors:
            for method in WITH_VECTORS:
                if ("make" in method) is make:
                    yield ranker_job(config, method, vectors, seed)
        if make:
            yield ranker_job(config, CONTROL, config.control, seed)


def ranker_job(config: CompareConfig, method: str, vectors: Path | None, seed: int) -> Job:
    """One cell of the table."""
    run_dir = ranker_dir(config.run_dir, method, vectors, seed)
    train = ("train_ranker", ranker_flags(config.run_dir, config.data, method, vectors, seed))
    evaluate = ("evaluate", words("--run_dir", run_dir, "--data", config.data))
    return Job((train, evaluate), run_dir / "metrics.json")


def ranker_flags(
    root: Path, data: Path, method: str, vectors: Path | None, seed: int
) -> tuple[str, ...]:
    """The flags of apps.train_ranker for one cell of the table below ``root``."""
    run_dir = ranker_dir(root, method, vectors, seed)
    flags: tuple[object, ...] = ("--method", method, "--data", data, "--run_dir", run_dir)
    if vectors is not None:
        flags += ("--vectors", vectors)
        if "make" in method:
            flags += ("--make", make_dir(root, vectors, seed))
    return words(*flags, "--seed", seed, "--resume")


def make_dir(root: Path, vectors: Path, seed: int) -> Path:
    return root / f"make-training-{vectors.name}-{seed}"


def ranker_dir(root: Path, method: str, vectors: Path | None, seed: int) -> Path:
    return root / "-".join([method, *([vectors.name] if vectors else []), str(seed)])


def seeds(config: CompareConfig) -> range:
    return range(config.seed, config.seed + config.seeds)


def words(*flags: object) -> tuple[str, ...]:
    return tuple(str(flag) for flag in flags)


if __name__ == "__main__":
    sys.exit(run(main))
