"""apps.train_ranker: every method trains; every mistake is one line, status 2, and no folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from apps.train_ranker import main
from tests.helpers.runs import lines_of, ranker_flags, train_make, train_ranker
from tests.helpers.small_market import (
    SmallMarket,
    read_parquet,
    rewrite,
    write_parquet,
    write_small_market,
    write_vectors,
)
from torchrec_mm.ranking.spec import METHODS
from torchrec_mm.runs.checkpoint import checkpoint_shapes, read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

TRAIN = "requests/train"


@pytest.fixture(scope="module")
def make(market, tmp_path_factory) -> Path:
    return train_make(market, tmp_path_factory.mktemp("runs") / "make")


@pytest.mark.parametrize("method", ["bias", *METHODS])
def test_every_method_trains_and_leaves_a_whole_run(method, market, make, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", method, make=make)
    files = {entry.name for entry in run_dir.iterdir()}
    expected = {"config.yaml", "environment.json", "model.json", "checkpoints", "logs"}
    expected |= {"vocabularies.safetensors", "item_frequency.safetensors"}
    if method != "bias":
        expected |= {"metrics.jsonl", "plan.json", "tensorboard"}
    if method == "codes":
        expected.add("codebooks.safetensors")
    assert files == expected
    model = json.loads((run_dir / "model.json").read_text())
    assert (model["kind"], model["method"]) == ("ranker", method)
    assert (model["vectors"] is None) == (method in ("bias", "id"))
    keys = checkpoint_shapes(find_checkpoint(run_dir / "checkpoints").folder)
    assert ("make" in method) == any(".make." in key for key in keys)


def test_what_is_not_given_has_a_default_that_works(market, tmp_path):
    flags = [*market.flags, "--method", "id", "--run_dir", str(tmp_path / "run")]
    main(flags)
    assert len(lines_of(tmp_path / "run", "epoch")) == 1


def test_each_epoch_is_a_line_of_metrics(market, tmp_path):
    more = ("--epochs", "3", "--test_auc", "true", "--log_every_steps", "20")
    run_dir = train_ranker(market, tmp_path / "run", "id", *more)
    lines = lines_of(run_dir, "epoch")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(0 <= line["train_auc"] <= 1 and 0 <= line["test_auc"] <= 1 for line in lines)
    assert lines[2]["loss"] < lines[0]["loss"]
    assert [line["step"] for line in lines_of(run_dir, "step")] == [4, 8, 12]


def test_labels_all_alike_give_null_and_not_nan(tmp_path):
    market = write_small_market(tmp_path)
    for split in ("train", "test"):
        folder = market.data / "requests" / split
        rewrite(folder, labels=[[0] * len(labels) for labels in read_parquet(folder)["labels"]])
    run_dir = train_ranker(market, tmp_path / "run", "id", "--test_auc", "true")
    (line,) = lines_of(run_dir, "epoch")
    assert line["train_auc"] is None and line["test_auc"] is None


def test_the_config_of_a_run_trains_the_same_run_again(market, tmp_path):
    first = train_ranker(market, tmp_path / "first", "id")
    config = ["--config", str(first / "config.yaml"), "--run_dir", str(tmp_path / "second")]
    main(config)
    assert lines_of(tmp_path / "second", "step") == lines_of(first, "step")


def test_a_run_resumes_where_its_data_moved_to_unless_they_differ(market, tmp_path, refused):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    moved = SmallMarket(shutil.copytree(market.data, tmp_path / "data"), market.vectors)
    train_ranker(moved, run_dir, "id", "--resume")
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["data"] == str(moved.data)
    folder = moved.data / "requests" / "train"
    rewrite(folder, labels=[[1] * len(labels) for labels in read_parquet(folder)["labels"]])
    line = refused(main, [*ranker_flags(moved, run_dir, "id"), "--resume"])
    assert "train must stay {" in line and "to resume " in line


def test_features_are_optional(tmp_path):
    """The least a market can hold: ids, behaviours, candidates, labels."""
    market = write_small_market(tmp_path)
    items = read_parquet(market.data / "items")
    write_parquet(market.data / "items", {"item_id": items["item_id"]})
    extra = dict.fromkeys(("timestamp", "city", "page", "stars", "action"))
    rewrite(market.data / "requests" / "train", **extra)
    run_dir = train_ranker(market, tmp_path / "run", "simtier")
    assert len(lines_of(run_dir, "epoch")) == 1


@pytest.mark.parametrize("method", ["id", "bias"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: shutil.rmtree(data / "items"), "items must be a folder of Parquet files: no"),
        (
            lambda data: rewrite(data / "items", item_id=list(range(24))),
            "candidate_item_ids must hold ids of items/ only",
        ),
        (lambda data: shutil.rmtree(data / TRAIN), "train must be a folder of Parquet files"),
        (lambda data: rewrite(data / TRAIN, user_id=None), "must have a column user_id"),
    ],
)
def test_spoiled_data_are_named_and_leave_no_run(spoil, words, method, tmp_path, refused):
    market = write_small_market(tmp_path)
    spoil(market.data)
    assert words in refused(main, ranker_flags(market, tmp_path / "run", method))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method", "simtier"], "vectors must be given with method simtier, got None"),
        (["--method", "make", "--vectors", "v"], "make must be given with method make, got None"),
        (["--method", "id", "--vectors", "v"], "vectors must not be given with method id, got v"),
        (["--method", "id", "--make", "m"], "make must not be given with method id, got m"),
        (
            ["--method", "simtier", "--vectors", "v", "--left_out", "[make_logit]"],
            "left_out must be of method simtier, got make_logit",
        ),
        (["--method", "din"], "--method must be one of bias, id, vector"),
        (["--embedding_dim", "6"], "embedding_dim must be a multiple of 4, got 6"),
        (["--num_tiers", "1"], "num_tiers must be at least 2, got 1"),
        (["--learning_rate", "-1"], "learning_rate must be above 0, got -1.0"),
        (["--hidden", "[8,0]"], "hidden must be at least 1, got (8, 0)"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--batch_requests", "0"], "batch_requests must be at least 1, got 0"),
        (["--max_behaviours", "0"], "max_behaviours must be at least 1, got 0"),
        (["--num_tears", "5"], "unknown flag: --num_tears"),
        (["--method", "simtier", "--vectors", "absent"], "absent must be a folder of item vectors"),
    ],
)
def test_a_wrong_flag_is_named_and_leaves_no_run(flags, words, market, tmp_path, refused):
    given = [*market.flags, "--run_dir", str(tmp_path / "run"), *flags]
    assert words in refused(main, given)
    assert not (tmp_path / "run").exists()


def test_make_comes_from_its_run_and_stays_as_it_was(market, make, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", "make", make=make)
    given = read_checkpoint(find_checkpoint(make / "checkpoints").folder, "model.make.")
    kept = read_checkpoint(find_checkpoint(run_dir / "checkpoints").folder, "model.network.make.")
    assert given.keys() == kept.keys()
    assert all(torch.equal(given[name], kept[name]) for name in given)


def test_a_make_of_other_vectors_is_refused(market, make, tmp_path, refused):
    other = SmallMarket(market.data, tmp_path / "vectors")
    write_vectors(other.vectors, seed=5)
    flags = ranker_flags(other, tmp_path / "run", "make", make)
    assert "vectors must have the origin of make" in refused(main, flags)
    assert not (tmp_path / "run").exists()


def test_a_make_of_another_depth_is_refused(market, make, tmp_path, refused):
    flags = [*ranker_flags(market, tmp_path / "run", "simtier+make", make), "--hidden", "[8]"]
    assert "hidden must have as many layers as MAKE's, 2, got (8,)" in refused(main, flags)
    assert not (tmp_path / "run").exists()


def test_a_make_that_is_no_make_is_refused(market, make, tmp_path, refused):
    flags = ranker_flags(market, tmp_path / "run", "make", tmp_path / "absent")
    assert "absent must be the folder of a make run" in refused(main, flags)
    ranker = train_ranker(market, tmp_path / "id", "id")
    flags = ranker_flags(market, tmp_path / "run", "make", ranker)
    assert "must be a make run, got a ranker run" in refused(main, flags)
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(market, tmp_path, refused):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    before = (run_dir / "metrics.jsonl").read_text()
    flags = ranker_flags(market, run_dir, "id")
    assert "exists already: name a new folder or remove it first" in refused(main, flags)
    assert (run_dir / "metrics.jsonl").read_text() == before
