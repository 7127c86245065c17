"""A recipe's runs: what is told to each, and that no row has more tries than another."""

from pathlib import Path

import pytest

from torchrec_mm.files import write_json
from torchrec_mm.study.plan import Plan
from torchrec_mm.study.recipe import Recipe, Row, VectorsOf

OWN, RANDOM = VectorsOf(of="own"), VectorsOf(of="random")
RECIPE = Recipe(
    title="Small",
    about="Which?",
    seeds=2,
    tune=({}, {"epochs": 2}),
    baselines=("id",),
    rows={
        "id": Row(method="id"),
        "make": Row(method="make", vectors=OWN, make={"epochs": 3}),
        "make/random": Row(method="make", vectors=RANDOM, make={"epochs": 3}),
        "both": Row(method="simtier+make", vectors=OWN, make={"epochs": 3}),
        "long": Row(method="id", ranker={"epochs": 9}),
        "half": Row(method="id", train=0.5),
        "codes": Row(method="codes", vectors=VectorsOf(of="each")),
    },
    claims=(("make", "half"),),
)


@pytest.fixture
def plan(tmp_path):
    vectors = {"text": Path("v/text"), "image": Path("v/image")}
    return Plan(recipe=RECIPE, data=Path("data"), vectors=vectors, root=tmp_path, first_seed=5)


@pytest.fixture
def tuned(plan):
    """A second epoch was better for make alone."""
    for name in plan.rows:
        for number in range(len(plan.options(name))):
            score = 0.7 + 0.01 * number * (1 if name == "make" else -1)
            folder = plan.tuning_dir(name, number)
            write_json(folder / "metrics.json", {"auc": score, "gauc": score})
    return plan


def told(job, command: str) -> dict[str, str]:
    (words,) = (flags for name, flags in job.commands if name == command)
    words = [word for word in words if word != "--resume"]
    return {w[2:]: v for w, v in zip(words[::2], words[1::2], strict=True)}


def test_a_row_of_each_set_of_vectors_is_a_row_for_each(plan):
    assert [name for name in plan.rows if "codes" in name] == ["codes, text", "codes, image"]
    folders = [plan.vectors_of(name) for name in ("codes, text", "codes, image", "make")]
    assert folders == [Path("v/text"), Path("v/image"), Path("v/text")]


def test_every_row_has_the_same_tries_unless_its_own_flags_leave_but_one(plan):
    tries: dict[str, int] = {}
    for job in plan.tuning_jobs():
        row = job.result.parents[1].name
        tries[row] = tries.get(row, 0) + 1
    assert tries == {
        **{"id": 2, "make": 2, "make%2Frandom": 2, "both": 2, "half": 2},
        **{"codes, text": 2, "codes, image": 2},
    }


def test_tuning_reads_the_validation_split_and_never_test(plan):
    jobs = [*plan.tuning_jobs(), *plan.make_jobs(tuning=True)]
    data = {told(job, name)["data"] for job in jobs for name, _ in job.commands}
    assert data == {str(plan.root / "data" / name) for name in ("fit-1", "fit-0.5")}


def test_what_was_best_on_the_validation_split_is_trained_on_all_of_training(tuned):
    jobs = [told(job, "train_ranker") for job in tuned.jobs()]
    epochs = {(job["run_dir"].split("/")[-2], job.get("epochs")) for job in jobs}
    assert epochs == {
        *(("id", None), ("make", "2"), ("make%2Frandom", None), ("both", None), ("long", "9")),
        *(("half", None), ("codes, text", None), ("codes, image", None)),
    }
    assert {job["seed"] for job in jobs} == {"5", "6"}
    assert {job["data"] for job in jobs} == {"data", str(tuned.root / "data" / "train-0.5")}
    assert len({job["run_dir"] for job in jobs}) == len(jobs) == 16


def test_rows_of_the_same_vectors_and_flags_share_a_make_and_join_that_of_their_seed(tuned):
    made = {told(job, "train_make")["run_dir"]: told(job, "train_make") for job in (
        tuned.make_jobs(tuning=False)
    )}  # fmt: skip
    assert len(made) == 4  # own and random, of two seeds
    for job in tuned.jobs():
        ranker = told(job, "train_ranker")
        if "make" in ranker["method"]:
            make = made[ranker["make"]]
            assert (make["vectors"], make["seed"], make["epochs"]) == (
                *(ranker["vectors"], ranker["seed"]),
                "3",
            )


def test_a_row_is_compared_with_the_baselines_its_control_and_what_is_claimed(plan):
    assert plan.compared_with("make") == ["id", "make/random", "half"]
    assert plan.compared_with("id") == []
    assert plan.compared_with("codes, text") == ["id"]


def test_only_what_differs_from_what_is_given_is_made(plan):
    (folder,) = plan.derived()
    assert plan.derived()[folder] == (Path("v/text"), RANDOM)
    assert sorted(folder.name for folder in plan.data_sets()) == ["fit-0.5", "fit-1", "train-0.5"]


def test_rows_that_join_make_can_be_had_apart(tuned):
    def names(make: bool | None) -> set[str]:
        return {job.result.parents[1].name for job in tuned.jobs(make=make)}

    assert names(True) == {"make", "make%2Frandom", "both"}
    assert names(True) | names(False) == names(None) and not names(True) & names(False)
