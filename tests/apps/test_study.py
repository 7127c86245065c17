"""apps.study: a whole study of a small market, gone on with, and refused before its first run."""

import json
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml

import apps.study
from tests.helpers.forks import wait_until
from tests.helpers.small_market import SmallMarket
from torchrec_mm.stages.jobs import Job

pytestmark = pytest.mark.slow

SMALL = {"embedding_dim": 4, "hidden": [4], "batch_requests": 16, "min_count": 2}
RECIPE = {
    "title": "Small",
    "about": "Which?",
    "seeds": 2,
    "slices": True,
    "tune": [SMALL, {**SMALL, "epochs": 2}],
    "baselines": ["id"],
    "rows": {
        "bias": {"method": "bias"},
        "id": {"method": "id"},
        "make": {
            "method": "make",
            "vectors": {"of": "own", "share": 0.8},
            "make": {"hidden": [4], "epochs": 1, "test_auc": True},
        },
        "codes": {"method": "codes", "vectors": {"of": "each"}},
    },
}


def flags_of(market: SmallMarket, folder: Path, **changed) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, **changed}, sort_keys=False))
    where = ["--vectors", f"[{market.vectors}]", "--run_dir", str(folder / "study")]
    return ["--recipe", str(recipe), *market.flags, *where, "--resamples", "100"]


@pytest.fixture(scope="module")
def done(market, tmp_path_factory):
    """A folder with a recipe and its whole study."""
    folder = tmp_path_factory.mktemp("study")
    apps.study.main([*flags_of(market, folder), "--processes", "2"])
    return folder


def test_a_study_says_of_each_row_what_it_came_to(done):
    study = json.loads((done / "study" / "study.json").read_text())
    rows = {row["row"]: row for row in study["rows"]}
    assert [*rows] == ["bias", "id", "make", "codes, vectors"]
    for name, row in rows.items():
        assert row["against"].keys() == ({"id"} if name != "id" else set())
        assert row["parameters"] > 0 and (row["impressions_per_s"] is None) == (name == "bias")
        assert len(row["slices"]) >= 3
        assert (len(row["epochs"]), len(row["epochs_of_make"])) == (0, name == "make")
        runs = done / "study" / "runs" / name
        seeds = [json.loads((runs / s / "metrics.json").read_text()) for s in "01"]
        for figure in ("auc", "gauc", "log_loss"):
            found = row["figures"][figure]
            assert found["low"] <= found["value"] <= found["high"]
            assert found["value"] == pytest.approx(sum(s[figure] for s in seeds) / 2, abs=1e-6)
    assert "| codes, vectors |" in (done / "study" / "study.md").read_text()
    assert "codes, vectors" in (done / "study" / "study.html").read_text()


def test_a_study_that_is_gone_on_with_trains_nothing_again(market, done, monkeypatch):
    before = (done / "study" / "study.json").read_text()
    started: list[Path | None] = []
    monkeypatch.setattr(
        apps.study.JobPool,
        "run",
        lambda pool, jobs: started.extend(job.result for job in jobs if is_open(job)),
    )
    apps.study.main(flags_of(market, done))
    assert not started
    assert (done / "study" / "study.json").read_text() == before


@pytest.mark.kill
def test_a_study_that_was_killed_goes_on_to_the_same_bytes(market, done, tmp_path):
    flags = flags_of(market, tmp_path)
    study, whole = tmp_path / "study", done / "study"
    command = [sys.executable, "-m", "apps.study", *flags, "--processes", "1"]
    started = subprocess.Popen(command)
    wait_until(lambda: len(made(study)) >= 3)
    started.kill()
    assert started.wait() == -signal.SIGKILL
    assert 3 <= len(made(study)) < len(made(whole))
    apps.study.main([*flags, "--processes", "2"])
    assert made(study) == made(whole)
    assert without_speeds(study) == without_speeds(whole)


def made(study: Path) -> dict[Path, bytes]:
    """Every logit of each run, those of tuning too."""
    found = (study.glob(f"{kind}/*/*/predictions.parquet") for kind in ("tuning", "runs"))
    return {file.relative_to(study): file.read_bytes() for file in chain(*found)}


def without_speeds(study: Path) -> str:
    told = json.loads((study / "study.json").read_text())
    for row in told["rows"]:
        del row["impressions_per_s"]
    return json.dumps(told)


def is_open(job: Job) -> bool:
    """Whether there is something left to do; MAKE's jobs find out by themselves."""
    return job.result is not None and not job.result.exists()


def test_a_claim_that_does_not_hold_ends_with_an_error(market, done, monkeypatch):
    monkeypatch.setattr(apps.study.JobPool, "run", lambda pool, jobs: None)
    monkeypatch.setattr(apps.study, "claimed", lambda run_dir, name, settings: settings)
    with pytest.raises(SystemExit, match="the study must show .*, and does not"):
        apps.study.main(flags_of(market, done, claims=[["bias", "id"], ["id", "bias"]]))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"tune": [{"epoch": 2}]}, "row bias: unknown flag: --epoch"),
        ({"rows": {"one": {"method": "ids"}}}, "row one: --method must be one of bias, id"),
        ({"rows": {"one": {"methods": "id"}}}, "unknown key: methods"),
        ({"baselines": ["two"]}, "two must be among rows"),
        ({"rows": {"one": {"method": "simtier"}}}, "row one: vectors must be given with method"),
        (
            {"rows": {"one": {"method": "id", "vectors": {"of": "own"}}}},
            "row one: vectors must not be given with method id",
        ),
    ],
)
def test_a_flag_that_is_none_is_refused_before_the_first_run(
    market, tmp_path, refused, changed, complaint
):
    changed = {"baselines": [], **changed}
    assert complaint in refused(apps.study.main, flags_of(market, tmp_path, **changed))
    assert not (tmp_path / "study").exists()


def test_a_folder_of_another_study_is_refused(market, tmp_path, refused):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("another")
    said = refused(apps.study.main, flags_of(market, tmp_path))
    assert "holds a study with other settings" in said
