"""--at: a feature of the impression that is not there when it is scored is refused or set."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.encode
import apps.evaluate
import apps.predict
from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import evaluate, train_ranker
from tests.helpers.small_market import SmallMarket

FEATURES = {"candidate_position": 0, "candidate_source": "mail", "candidate_discount": 0.5}


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_kinds_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def run(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("runs") / "id", "id")


def with_columns(market, folder: Path, **values) -> Path:
    """The test requests without the features of impressions, or with one value of some."""
    shutil.copytree(market.data / "requests" / "test", folder)
    table = pq.read_table(folder / "part.parquet").drop_columns(list(FEATURES))
    lengths = table["candidate_item_ids"].combine_chunks().value_lengths().to_pylist()
    for name, value in values.items():
        kind = pa.list_(pa.scalar(FEATURES[name]).type)
        lists = pa.array([[value] * n for n in lengths], kind)
        table = table.append_column(name, lists)
    pq.write_table(table, folder / "part.parquet")
    return folder


def flags_of(run, requests, output, at=None):
    flags = ["--run_dir", run, "--requests", requests, "--output", output]
    return [*map(str, flags), *(["--at", json.dumps(at)] if at is not None else [])]


def scores(*args, **more):
    flags = flags_of(*args, **more)
    apps.predict.main(flags)
    return pq.read_table(flags[5])["click_probabilities"].to_pylist()


@pytest.mark.parametrize("value", [FEATURES, dict.fromkeys(FEATURES)])
def test_values_at_are_those_of_columns_that_hold_nothing_else(value, market, run, tmp_path):
    there = with_columns(market, tmp_path / "there", **value)
    absent = with_columns(market, tmp_path / "absent")
    wanted = scores(run, there, tmp_path / "a.parquet")
    assert scores(run, absent, tmp_path / "b.parquet", at=value) == wanted
    as_it_is = market.data / "requests" / "test"
    assert scores(run, as_it_is, tmp_path / "c.parquet", at=value) == wanted
    assert scores(run, as_it_is, tmp_path / "d.parquet") != wanted


def test_an_absent_feature_of_the_impression_is_refused_with_the_cure(
    market, run, tmp_path, refused
):
    at = {name: FEATURES[name] for name in FEATURES if name != "candidate_position"}
    absent = with_columns(market, tmp_path / "absent")
    line = refused(apps.predict.main, flags_of(run, absent, tmp_path / "a.parquet", at))
    assert "requests/ must have the column candidate_position that the ranker was trained" in line
    assert "or --at '{candidate_position: ...}' say which value impressions are given" in line


def test_evaluation_at_a_position_says_so_in_its_figures(market, run):
    before = evaluate(market, run)
    found = evaluate(market, run, "--at", "{candidate_position: 0}")
    assert found["at"] == {"candidate_position": 0} and "at" not in before
    assert found["auc"] != before["auc"]
    assert found["unseen"]["candidate_position"]["unseen"] == 0


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ({"candidate_color": 1}, "at must name features of impressions that the run has, candidat"),
        ({"device": "phone"}, "got device"),
        ({"candidate_position": "0"}, "at candidate_position must be int64 or null, got '0'"),
        ({"candidate_position": 1.5}, "at candidate_position must be int64 or null, got 1.5"),
        ({"candidate_source": True}, "at candidate_source must be text, a number or null, got {"),
        ({"candidate_source": 7}, "at candidate_source must be string or null, got 7"),
        ({"candidate_discount": "x"}, "at candidate_discount must be double or null, got 'x'"),
        ({"candidate_discount": float("inf")}, "must be double or null, got inf"),
    ],
)
def test_values_that_no_feature_of_the_run_can_have_are_refused(
    at, words, market, run, tmp_path, refused
):
    flags = flags_of(run, market.data / "requests" / "test", tmp_path / "a.parquet")
    text = json.dumps(at).replace("Infinity", ".inf")
    assert words in refused(apps.predict.main, [*flags, "--at", text])


def test_data_that_are_encoded_already_have_no_value_at(market, run, tmp_path, refused):
    encode = ["--data", str(market.data), "--run_dir", str(tmp_path / "encoded")]
    apps.encode.main([*encode, "--min_count", "2", "--max_behaviours", "50"])
    flags = ["--run_dir", str(run), "--encoded", str(tmp_path / "encoded")]
    line = refused(apps.evaluate.main, [*flags, "--at", "{candidate_position: 0}"])
    assert "at must not be given for data that are encoded" in line
