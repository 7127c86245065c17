"""apps.predict: a row a request, in the order of the input, scored as apps.evaluate scores."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import apps.encode
import apps.predict
import apps.train_ranker
from tests.helpers.runs import predictions, train_make, train_ranker
from tests.helpers.small_market import (
    ITEM_IDS,
    NEVER_SHOWN,
    SmallMarket,
    read_parquet,
    rewrite,
    write_parquet,
)
from torchrec_mm.columns.text_ids import MAP_SCHEMA
from torchrec_mm.data.encode import writer as encode_writer
from torchrec_mm.errors import InputError
from torchrec_mm.runs.tensor_shards import model_shards
from torchrec_mm.scoring import evaluation, score

METHODS = ("bias", "id", "make", "simtier+make", "muse")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    """A trained run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    return {method: train_ranker(market, folder / method, method, make=make) for method in METHODS}


def test_requests(market: SmallMarket) -> Path:
    return market.data / "requests" / "test"


test_requests.__test__ = False


def scores(run_dir: Path, requests: Path, output: Path, *more: str) -> dict[str, list]:
    """Columns of what the command writes."""
    apps.predict.main([*map(str, flags_of(run_dir, requests, output)), *more])
    return pq.read_table(output).to_pydict()


def copied(market: SmallMarket, folder: Path, **changes: list | None) -> Path:
    """The test requests, changed."""
    shutil.copytree(test_requests(market), folder)
    rewrite(folder, **changes)
    return folder


def flags_of(run_dir: Path, requests: Path, output: Path) -> list:
    return ["--run_dir", run_dir, "--requests", requests, "--output", output]


@pytest.mark.parametrize("method", METHODS)
def test_it_scores_as_evaluate_does_with_labels_and_without(method, market, runs, tmp_path):
    wanted = predictions(market, runs[method], tmp_path / "p.parquet")
    found = scores(runs[method], test_requests(market), tmp_path / "labelled.parquet")
    test = read_parquet(test_requests(market))
    assert list(found) == ["user_id", "timestamp", "candidate_item_ids", "click_probabilities"]
    for name in ("user_id", "timestamp", "candidate_item_ids"):
        assert found[name] == test[name]
    lengths = [len(items) for items in test["candidate_item_ids"]]
    assert [len(row) for row in found["click_probabilities"]] == lengths
    clicks = [1 / (1 + math.exp(-logit)) for logit in wanted["logit"]]
    assert sum(found["click_probabilities"], []) == pytest.approx(clicks, rel=1e-6)
    bare = copied(market, tmp_path / "bare", labels=None)
    assert scores(runs[method], bare, tmp_path / "bare.parquet") == found


HALF = "{item_id: {dtype: fp16, sharding: row_wise}, shop_id: {optimizer: adagrad}}"


@pytest.fixture(scope="module")
def half(market, tmp_path_factory) -> Path:
    """A run that follows the plan of one with fp16 rows, cut by rows, and Adagrad."""
    folder = tmp_path_factory.mktemp("half")
    first = train_ranker(market, folder / "first", "id", "--tables", HALF)
    plan = ("--plan", str(first / "plan.json"), "--tables", "{item_id: {dtype: fp16}}")
    run_dir = train_ranker(market, folder / "run", "id", *plan)
    shutil.rmtree(first)  # the run's own plan.json says the same
    return run_dir


@pytest.mark.parametrize("app", ["predict", "evaluate"])
def test_tables_are_held_as_the_run_held_them(app, market, half, tmp_path, monkeypatch):
    held, distribute = [], score.distribute_for_scoring
    noted = lambda *args: held.append(distribute(*args)) or held[-1]  # noqa: E731
    monkeypatch.setattr(score, "distribute_for_scoring", noted)
    if app == "predict":
        scores(half, test_requests(market), tmp_path / "p.parquet")
    else:
        predictions(market, half, tmp_path / "p.parquet")
    (model,) = held
    tables = {table.name: table for table in model.planned}
    assert tables["item_id_table"].sharding == "row_wise"
    pieces = model_shards(model.model).items()
    assert {p.dtype for key, p in pieces if "item_id_table" in key} == {torch.float16}
    assert {table.settings.optimizer for table in model.planned} == {"sgd"}


def test_a_run_of_gpus_is_scored_on_the_cpu(market, runs, tmp_path):
    wanted = scores(runs["id"], test_requests(market), tmp_path / "p.parquet")
    run_dir = shutil.copytree(runs["id"], tmp_path / "run")
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    cached = {"kernel": "fused_uvm_caching", "cache_load_factor": 0.1, "optimizer": "adam"}
    config |= {"tables": {"item_id": cached}, "communication": "fp16"}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    assert scores(run_dir, test_requests(market), tmp_path / "p.parquet") == wanted


def write_map(path: Path, texts: dict[int, str]) -> None:
    rows = dict(sorted(texts.items()))
    table = pa.table([list(rows), list(rows.values())], schema=MAP_SCHEMA)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)


def test_ids_are_the_texts_that_they_were_where_maps_have_them(market, runs, tmp_path):
    requests = copied(market, tmp_path / "data" / "requests" / "test")
    numbers = scores(runs["bias"], requests, tmp_path / "numbers.parquet")
    users = {user: f"user {user}" for user in numbers["user_id"]}
    items = {item: f"item {item}" for item in ITEM_IDS}
    named = {
        "user_id": [users[user] for user in numbers["user_id"]],
        "candidate_item_ids": [[items[i] for i in row] for row in numbers["candidate_item_ids"]],
    }
    write_map(tmp_path / "data" / "ids" / "users.parquet", users)
    found = scores(runs["bias"], requests, tmp_path / "p.parquet")
    assert found == numbers | {"user_id": named["user_id"]}
    write_map(tmp_path / "data" / "ids" / "items.parquet", items)
    assert scores(runs["bias"], requests, tmp_path / "p.parquet") == numbers | named
    ids = (tmp_path / "data" / "ids").rename(tmp_path / "elsewhere")
    assert scores(runs["bias"], requests, tmp_path / "p.parquet") == numbers
    assert scores(runs["bias"], requests, tmp_path / "p.parquet", f"--ids={ids}") == numbers | named
    write_map(ids / "users.parquet", {-1: "another"})
    missing = f"users.parquet must hold every id, got none for {numbers['user_id'][0]}"
    with pytest.raises(InputError, match=missing):
        scores(runs["bias"], requests, tmp_path / "p.parquet", f"--ids={ids}")
    with pytest.raises(InputError, match="ids must be a folder with users.parquet or items"):
        scores(runs["bias"], requests, tmp_path / "p.parquet", f"--ids={tmp_path}")


def test_rows_keep_the_order_of_files_and_rows_over_groups(market, runs, tmp_path, monkeypatch):
    test = read_parquet(test_requests(market))
    cuts = {"b.parquet": slice(0, 4), "a-10.parquet": slice(4, 21), "a-2.parquet": slice(21, 25)}
    for name, rows in cuts.items():
        write_parquet(tmp_path / "parts", {column: v[rows] for column, v in test.items()})
        (tmp_path / "parts" / "part.parquet").rename(tmp_path / "parts" / name)
    monkeypatch.setattr(encode_writer, "ROW_GROUP_BYTES", 200)
    monkeypatch.setattr("torchrec_mm.scoring.prediction_files.ROW_GROUP_BYTES", 300)
    found = scores(runs["id"], tmp_path / "parts", tmp_path / "p.parquet", "--batch_requests", "2")
    order = [*range(4, 21), *range(21, 25), *range(0, 4)]
    monkeypatch.undo()
    whole = scores(runs["id"], test_requests(market), tmp_path / "whole.parquet")
    sorted_scores = [whole["click_probabilities"][row] for row in order]
    assert found["timestamp"] == [test["timestamp"][row] for row in order]
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups > 3
    for ours, theirs in zip(found["click_probabilities"], sorted_scores, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_what_the_run_does_not_know_is_not_read_and_time_may_be_missing(market, runs, tmp_path):
    bare = copied(
        market,
        tmp_path / "more",
        timestamp=None,
        labels=None,
        request_number=[None, *range(24)],
        prices=[[1]] * 25,
    )
    found = scores(runs["id"], bare, tmp_path / "p.parquet")
    whole = scores(runs["id"], test_requests(market), tmp_path / "whole.parquet")
    whole.pop("timestamp")
    assert found == whole


def test_empty_histories_unknown_users_and_items_never_shown_are_scored(market, runs, tmp_path):
    count = 25
    cold = copied(
        market,
        tmp_path / "cold",
        user_id=[2**50 + row for row in range(count)],
        behaviour_item_ids=[np.array([], np.int64)] * count,
        candidate_item_ids=[[NEVER_SHOWN, ITEM_IDS[5]]] * count,
        labels=None,
        stars=[np.array([], np.int64)] * count,
        action=[np.array([], np.int64)] * count,
    )
    for method in METHODS:
        found = scores(runs[method], cold, tmp_path / "p.parquet")
        assert found["candidate_item_ids"] == [[NEVER_SHOWN, ITEM_IDS[5]]] * count
        assert all(0 < p < 1 for row in found["click_probabilities"] for p in row)


def test_a_run_trained_on_an_encoded_data_set_needs_items(market, tmp_path, refused):
    encoded = tmp_path / "encoded"
    apps.encode.main([*market.flags, "--run_dir", str(encoded), "--min_count", "2"])
    run_dir = tmp_path / "run"
    small = ["--embedding_dim", "4", "--hidden", "[8,4]", "--batch_requests", "16"]
    apps.train_ranker.main(["--encoded", str(encoded), "--run_dir", str(run_dir), *small])
    flags = flags_of(run_dir, test_requests(market), tmp_path / "p.parquet")
    line = refused(apps.predict.main, flags)
    assert "items must be given: " in line and str(encoded) in line
    items = ["--items", str(market.data / "items")]
    found = scores(run_dir, test_requests(market), tmp_path / "p.parquet", *items)
    assert len(found["user_id"]) == 25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": None}, "must have a column user_id"),
        ({"city": None}, "must have the column city that the ranker was trained with"),
        ({"candidate_item_ids": [[1]] * 25}, "must hold ids of items/ only, got 1"),
        ({"candidate_item_ids": [np.array([], np.int64)] * 25}, "must not be empty, row 0 is"),
    ],
)
def test_requests_that_do_not_fit_are_named_and_leave_nothing(
    changes, words, market, runs, tmp_path, refused
):
    bad = copied(market, tmp_path / "bad", **changes)
    output = tmp_path / "out" / "p.parquet"
    assert words in refused(apps.predict.main, flags_of(runs["id"], bad, output))
    assert not list(output.parent.iterdir())


def test_output_may_not_be_a_folder_nor_become_a_request(market, runs, tmp_path, refused):
    words = refused(apps.predict.main, flags_of(runs["id"], test_requests(market), tmp_path))
    assert "output must be a file, not a folder, got " in words
    inside = test_requests(market) / "scores.parquet"
    line = refused(apps.predict.main, flags_of(runs["id"], test_requests(market), inside))
    assert "output must not lie in what is read" in line


def test_a_killed_run_leaves_no_file_and_can_be_repeated(market, runs, tmp_path, monkeypatch):
    output = tmp_path / "p.parquet"
    aside = tmp_path / ".p.parquet.parts"
    (aside / "encoded").mkdir(parents=True)
    (aside / "00001.parquet").write_text("cut sh")
    assert len(scores(runs["id"], test_requests(market), output)["user_id"]) == 25
    before = output.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "request_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        scores(runs["id"], test_requests(market), output)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.parquet"]
    assert output.read_bytes() == before


def test_items_that_are_gone_are_named_and_may_be_given_anew(runs, market, tmp_path, refused):
    other = SmallMarket(shutil.copytree(market.data, tmp_path / "data"), market.vectors)
    run_dir = train_ranker(other, tmp_path / "run", "id")
    other.data.rename(tmp_path / "moved")
    requests = tmp_path / "moved" / "requests" / "test"
    line = refused(apps.predict.main, flags_of(run_dir, requests, tmp_path / "p.parquet"))
    assert f"items must be given: {run_dir}/config.yaml names {other.data}, which is gone" in line
    items = ["--items", str(tmp_path / "moved" / "items")]
    assert scores(run_dir, requests, tmp_path / "p.parquet", *items)["user_id"]
