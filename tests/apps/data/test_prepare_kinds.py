"""Rows of impressions with columns of every kind, through a ranker to its figures."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.evaluate
import apps.prepare
import apps.train_ranker
from tests.helpers.runs import SMALL_RANKER
from torchrec_mm.data.contract.describe import describe

ROWS = 80


@pytest.fixture
def rows(tmp_path):
    """Four impressions a request, and a catalogue whose features.yaml calls ``likes`` a bag."""
    numbers = range(ROWS)
    columns = {
        "user_id": [f"u{at // 4 % 3}" for at in numbers],
        "item_id": [f"i{at % 7}" for at in numbers],
        "label": [int(at % 3 == 0) for at in numbers],
        "timestamp": [at // 4 for at in numbers],
        "weight": [0.5 + at % 2 for at in numbers],
        "city": [("a", "b", None)[at // 4 % 3] for at in numbers],
        "budget": [float(at // 4) for at in numbers],
        "likes": [["x", "y"][: at // 4 % 3] for at in numbers],
        "cart_item_ids": [[f"i{at // 4 % 5}"] for at in numbers],
        "place": [at % 4 for at in numbers],
        "price": [1.5 * (at % 7) for at in numbers],
    }
    for name, table in (
        ("shown", columns),
        ("shop/items", {"item_id": [f"i{at}" for at in range(7)], "tags": [["x"], []] * 3 + [[]]}),
    ):
        (tmp_path / name).mkdir(parents=True)
        pq.write_table(pa.table(table), tmp_path / name / "a.parquet")
    (tmp_path / "shop" / "features.yaml").write_text("likes: {kind: bag}  # what users said\n")
    return tmp_path / "shown"


def test_every_kind_of_column_arrives_and_is_used(rows, tmp_path):
    data, run = tmp_path / "data", ["--run_dir", str(tmp_path / "run")]
    prepare = ["--source", "impressions", "--input", str(rows), "--run_dir", str(data)]
    apps.prepare.main([*prepare, "--items", str(tmp_path / "shop")])
    assert (data / "features.yaml").read_text() == "likes: {kind: bag}  # what users said\n"
    words = describe(data)["requests"]
    for name, kind in {
        "city": "category, string",
        "budget": "number, double",
        "likes": "bag, mean",
        "candidate_place": "category, list<int64>",
        "candidate_price": "number, list<double>",
    }.items():
        assert words[name].startswith(kind), name
    apps.train_ranker.main(["--method", "id", "--data", str(data), *run, *SMALL_RANKER])
    apps.evaluate.main(run)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    features = {"city", "likes", "tags", "candidate_place"}
    assert features <= {*metrics["unseen"]} and metrics["log_loss"] > 0


def test_settings_of_a_column_that_is_not_there_are_refused_by_their_own_name(
    rows, tmp_path, refused
):
    given = tmp_path / "shop" / "features.yaml"
    given.write_text("lieks: {kind: bag}\n")
    flags = ["--source", "impressions", "--input", rows, "--items", tmp_path / "shop"]
    line = refused(apps.prepare.main, [*flags, "--run_dir", tmp_path / "data"])
    assert f"{given} must name columns of items/ or requests/" in line and "got lieks" in line
