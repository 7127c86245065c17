"""Every public data set from its published files to a ranker and its figures."""

import json

import pytest

import apps.evaluate
import apps.prepare
import apps.train_ranker
from tests.data.public import published
from tests.helpers.runs import SMALL_RANKER

SOURCES = ("mind", "microlens", "amazon", "kuairand", "criteo")


@pytest.fixture(params=SOURCES, scope="module")
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    source = getattr(published, f"write_{request.param}")(folder / "published")
    flags = ["--source", request.param, "--input", str(source), "--run_dir", str(folder / "data")]
    more = [] if request.param == "mind" else ["--test_share", "0.4"]
    apps.prepare.main([*flags, *more])
    return folder / "data"


def test_a_public_data_set_becomes_a_ranker_with_figures(prepared, tmp_path):
    run = ["--run_dir", str(tmp_path / "run")]
    apps.train_ranker.main(["--method", "id", "--data", str(prepared), *run, *SMALL_RANKER])
    apps.evaluate.main([*run, "--data", str(prepared)])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["impressions"] > 0 and metrics["log_loss"] > 0


def test_it_says_what_its_columns_are(prepared):
    text = (prepared / "features.yaml").read_text()
    assert text.startswith("## What each column is taken for") or "transform: log1p" in text


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        ("mind", "--test_share=0.1"),
        ("criteo", "--behaviours=3"),
        ("microlens", "--pause_s=3"),
        ("amazon", "--negatives=3"),
        ("kuairand", "--like_from=3"),
    ],
)
def test_a_flag_that_a_data_set_does_not_know_is_refused(source, flag, tmp_path, refused):
    flags = ["--source", source, "--input", tmp_path, "--run_dir", tmp_path / "data", flag]
    assert f"does not apply to source {source}" in refused(apps.prepare.main, flags)


@pytest.mark.parametrize("source", SOURCES)
def test_a_folder_without_its_files_is_refused(source, tmp_path, refused):
    (tmp_path / "in").mkdir()
    flags = ["--source", source, "--input", tmp_path / "in", "--run_dir", tmp_path / "data"]
    line = refused(apps.prepare.main, flags)
    assert f"{tmp_path / 'in'} must hold " in line and "found none" in line
