"""A ranker that reads the columns of a market where they matter ranks better than one without."""

import json

import pytest

import apps.evaluate
import apps.make_market
import apps.train_ranker

COLUMNS = "price, tags, budget, candidate_position, candidate_discount"
SMALL = ["--items=120", "--users=60", "--impressions=12000", "--searches=1", "--image_size=16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market") / "data"
    flags = [*SMALL, "--features=full", "--processes=1", f"--run_dir={folder}"]
    apps.make_market.main(flags)
    return folder


def gauc(data, run_dir) -> float:
    run = ["--run_dir", str(run_dir)]
    train = ["--method", "id", "--data", str(data), "--epochs", "2", "--batch_requests", "32"]
    apps.train_ranker.main([*train, *run])
    apps.evaluate.main(run)
    return json.loads((run_dir / "metrics.json").read_text())["gauc"]


def test_columns_that_matter_are_worth_more_than_none(data, tmp_path):
    with_columns = gauc(data, tmp_path / "with")
    (data / "features.yaml").write_text(f"ignore: [{COLUMNS}]\n")
    without = gauc(data, tmp_path / "without")
    assert with_columns > without + 0.02
