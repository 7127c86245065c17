"""What helps and what does not: a recipe's rows tuned alike, trained, measured and compared.

python -m apps.study --recipe integration --data movielens --vectors "[vectors/text]" \
    --run_dir study
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchrec_mm.commands import module_of
from torchrec_mm.config import check_fields, flag_words, parse, run, to_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.stages.claim import claimed
from torchrec_mm.stages.jobs import JobPool
from torchrec_mm.study.measure import measure, phase_one
from torchrec_mm.study.plan import Plan
from torchrec_mm.study.recipe import NONE, read_recipe
from torchrec_mm.study.report import PAGE_FILE, write_study
from torchrec_mm.study.splits import cut
from torchrec_mm.study.vectors import derive
from torchrec_mm.targets import check_working_folder

from .train_make import TrainMakeConfig
from .train_ranker import TrainRankerConfig

SETTINGS = "study.yaml"
COMMANDS = ("train_make", "train_ranker", "evaluate")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train and compare the rows of a recipe; an interrupted study goes on where it was.

    Every row is tried with each option of the recipe on a validation split that is cut out of
    training, and trained on all of training with the best; only then the test split is read.
    """

    recipe: str
    """Name of a shipped recipe, or a YAML file."""
    data: Path
    """Folder that holds items/ and requests/."""
    vectors: tuple[Path, ...]
    """Folders of item vectors, each of another name; rows of own vectors take the first."""
    run_dir: Path
    """Folder to create: one folder a run, study.json, study.md and study.html."""
    seeds: int = 0
    """Runs of each row; 0: what the recipe says."""
    seed: int = 0
    """Of the first run of each row."""
    encoders: Path | None = None
    """Folder of apps.compare_encoders: what it found of an encoder stands beside the rows that have
    its vectors."""
    resamples: int = 1000
    """Of the users, for intervals."""
    processes: int = min(os.cpu_count() or 1, 8)
    """Runs side by side, one thread each."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 0, "at least 0", "seeds", "seed")
        check_fields(self, lambda x: x >= 1, "at least 1", "processes")
        check_fields(self, lambda x: x >= 100, "at least 100", "resamples")
        names = [folder.name for folder in self.vectors]
        if not names or len(set(names)) < len(names):
            raise InputError(f"vectors must differ in name, got {', '.join(names) or 'none'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(StudyConfig, argv)
    plan = plan_of(config)
    check_flags(plan)
    encoders = phase_one(config.encoders)
    check_working_folder(config.run_dir, "run_dir", [config.data, *config.vectors])
    settings = to_yaml(replace(config, processes=1, encoders=None)) + to_yaml(plan.recipe)
    if claimed(config.run_dir, SETTINGS, settings) != settings:
        rule = f"run_dir {config.run_dir} holds a study with other settings"
        raise InputError(f"{rule}: remove it, or name another")
    prepare(plan)
    with JobPool(config.processes, loaded=[module_of(each) for each in COMMANDS]) as pool:
        pool.run(plan.make_jobs(tuning=True))
        pool.run([*plan.tuning_jobs(), *plan.make_jobs(tuning=False)])
        pool.run(plan.jobs())
    study = measure(plan, config.resamples, encoders)
    write_study(study, config.run_dir)
    print(config.run_dir / PAGE_FILE)
    failed = [f"{c['above']} above {c['below']}" for c in study["claims"] if not c["holds"]]
    if failed:
        sys.exit(f"error: the study must show {' and '.join(failed)}, and does not")


def plan_of(config: StudyConfig) -> Plan:
    """The recipe on the data and vectors that are given."""
    recipe = read_recipe(config.recipe)
    if config.seeds:
        recipe = replace(recipe, seeds=config.seeds)
    return Plan(
        recipe=recipe,
        data=config.data,
        vectors={folder.name: folder for folder in config.vectors},
        root=config.run_dir,
        first_seed=config.seed,
    )


def check_flags(plan: Plan) -> None:
    """Refuse a recipe with a flag that a command would refuse, before the first run: InputError."""
    for name, row in plan.rows.items():
        try:
            for option in plan.options(name):
                given = {"vectors": plan.vectors_of(name)} if row.vectors.of != NONE else {}
                given |= {"make": plan.root} if "make" in row.method else {}
                own = {"method": row.method, "data": plan.data, "run_dir": plan.root}
                parse(TrainRankerConfig, flag_words(option | given | own))
            if row.make:
                own = {"data": plan.data, "vectors": plan.root, "run_dir": plan.root}
                parse(TrainMakeConfig, flag_words(row.make | own))
        except InputError as error:
            raise InputError(f"recipe {plan.recipe.title}, row {name}: {error}") from error


def prepare(plan: Plan) -> None:
    """Cut the data sets and make the vectors that are not there yet."""
    for folder, which in plan.data_sets().items():
        if not folder.exists():
            validation = plan.recipe.validation if which.validates else None
            cut(plan.data, folder, share=which.share, validation=validation)
    for folder, (given, how) in plan.derived().items():
        if not folder.exists():
            derive(given, how, folder)


if __name__ == "__main__":
    sys.exit(run(main))
