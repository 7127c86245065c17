"""apps.compare: which runs make the table, and what each is told."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from apps.compare import CompareConfig, make_jobs, ranker_jobs
from torchrec_mm.stages.jobs import Job

CONFIG = CompareConfig(
    data=Path("data"),
    vectors=(Path("v/text"), Path("v/image")),
    control=Path("v/random"),
    run_dir=Path("runs"),
    seeds=2,
    seed=3,
    id_epochs=4,
)


def commands_of(jobs: Iterable[Job], app: str) -> list[dict[str, str | None]]:
    """Flags of an app's commands, None for one without a value, in the jobs' order."""
    commands = [flags for job in jobs for name, flags in job.commands if name == app]
    return [_by_name(flags) for flags in commands]


def all_rankers() -> list[Job]:
    return [job for make in (False, True) for job in ranker_jobs(CONFIG, make=make)]


def _by_name(words: tuple[str, ...]) -> dict[str, str | None]:
    flags = zip(words, (*words[1:], "--"), strict=True)
    return {w[2:]: None if v.startswith("--") else v for w, v in flags if w.startswith("--")}


def test_make_is_trained_once_on_each_set_of_vectors_and_seed():
    runs = commands_of(make_jobs(CONFIG), "train_make")
    told = {(run["vectors"], run["seed"], run["run_dir"]) for run in runs}
    assert len(runs) == len(told) == 6
    assert told == {
        (f"v/{name}", seed, f"runs/make-training-{name}-{seed}")
        for name in ("text", "image", "random")
        for seed in "34"
    }
    assert all(run["data"] == "data" and "test_auc" in run and "resume" in run for run in runs)


def test_every_method_is_trained_on_every_set_of_vectors_and_seed():
    first, *runs = commands_of(all_rankers(), "train_ranker")
    assert first == {
        **{"method": "id", "data": "data", "run_dir": "runs/id-epochs-3", "seed": "3"},
        **{"epochs": "4", "test_auc": None, "resume": None},
    }
    cells = [(run["method"], run.get("vectors"), run["seed"]) for run in runs]
    with_vectors = ("vector", "simscore", "simtier", "make", "simtier+make")
    wanted = [(method, None) for method in ("bias", "id")]
    wanted += [(method, f"v/{name}") for name in ("text", "image") for method in with_vectors]
    wanted += [("simtier+make", "v/random")]
    assert sorted(cells, key=str) == sorted(((*c, s) for c in wanted for s in "34"), key=str)
    assert len({run["run_dir"] for run in runs}) == len(runs)


def test_a_ranker_joins_the_make_of_its_own_vectors_and_seed():
    made = {run["run_dir"]: run for run in commands_of(make_jobs(CONFIG), "train_make")}
    for run in commands_of(ranker_jobs(CONFIG, make=False), "train_ranker"):
        assert "make" not in run and "make" not in run["method"]
    for run in commands_of(ranker_jobs(CONFIG, make=True), "train_ranker"):
        assert "make" in run["method"]
        make = made[run["make"]]
        assert (make["vectors"], make["seed"]) == (run["vectors"], run["seed"])


def test_each_ranker_is_evaluated_on_the_same_data_and_done_when_that_is_there():
    _, *jobs = all_rankers()
    for job in jobs:
        (_, trained), (app, scored) = job.commands
        run_dir = _by_name(trained)["run_dir"]
        assert (app, _by_name(scored)) == ("evaluate", {"run_dir": run_dir, "data": "data"})
        assert job.result == Path(run_dir, "metrics.json")


def test_folders_of_vectors_that_runs_could_not_be_told_apart_by_are_refused():
    folders = {"data": Path("data"), "run_dir": Path("runs"), "control": Path("y/a")}
    with pytest.raises(ValueError, match="vectors and control must differ in name, got a, a"):
        CompareConfig(vectors=(Path("x/a"),), **folders)
