"""apps.train_make: MAKE learns from vectors alone; mistakes are one line and leave no run."""

import json
import shutil
from pathlib import Path

import pytest

from apps.train_make import main
from tests.helpers.runs import lines_of, make_flags, train_make
from tests.helpers.small_market import VECTOR_WIDTH, read_parquet, write_small_market
from torchrec_mm.item_vectors.store import ItemVectors

SHAPE = {"vector_width": VECTOR_WIDTH, "width": 6, "hidden": [8, 4], "dropout": 0.0}


def sizes_of(folder: Path) -> dict[str, int]:
    requests = read_parquet(folder)
    labels = sum(requests["labels"], [])
    return {
        "requests": len(requests["labels"]),
        "impressions": len(labels),
        "behaviours": sum(map(len, requests["behaviour_item_ids"])),
        "clicks": sum(labels),
    }


def test_a_run_holds_its_config_shape_metrics_and_checkpoint(market, tmp_path):
    run_dir = train_make(market, tmp_path / "run", "--test_auc", "true")
    files = {entry.name for entry in run_dir.iterdir()}
    assert files == {
        *("config.yaml", "environment.json", "model.json", "metrics.jsonl"),
        *("checkpoints", "logs", "tensorboard"),
    }
    model = json.loads((run_dir / "model.json").read_text())
    assert model == {
        "kind": "make",
        "vectors": ItemVectors.open(market.vectors).origin,
        "train": sizes_of(market.data / "requests" / "train"),
        "spec": SHAPE | {"folds": 2},
    }
    epochs = lines_of(run_dir, "epoch")
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(0 <= line["test_auc"] <= 1 for line in epochs)


def test_one_fold_is_described_as_it_was_before_there_were_folds(market, tmp_path):
    run_dir = train_make(market, tmp_path / "run", "--folds", "1", "--epochs", "1")
    assert json.loads((run_dir / "model.json").read_text())["spec"] == SHAPE


def test_make_keeps_learning_over_epochs(market, tmp_path):
    flags = ("--epochs", "6", "--learning_rate", "0.02")
    epochs = lines_of(train_make(market, tmp_path / "run", *flags), "epoch")
    assert epochs[-1]["loss"] < 0.9 * epochs[0]["loss"]
    assert epochs[-1]["train_auc"] > epochs[0]["train_auc"] + 0.1


def test_what_is_not_given_has_a_default_that_works(market, tmp_path):
    main([*market.vector_flags, "--run_dir", str(tmp_path / "run")])
    assert lines_of(tmp_path / "run", "epoch")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: shutil.rmtree(m.vectors), "vectors must be a folder of item vectors"),
        (lambda m: (m.vectors / "meta.json").write_text("{}"), "meta.json format must be 2, got"),
        (lambda m: shutil.rmtree(m.data / "requests"), "train must be a folder of Parquet files"),
    ],
)
def test_spoiled_input_is_named_and_leaves_no_run(spoil, words, tmp_path, refused):
    market = write_small_market(tmp_path)
    spoil(market)
    assert words in refused(main, make_flags(market, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epoch", "3"], "unknown flag: --epoch"),
        (["--batch_requests", "0"], "batch_requests must be at least"),
        (["--folds", "0"], "folds must be at least 1, got 0"),
        (["--hidden", "wide"], "--hidden must be a [list]"),
    ],
)
def test_a_wrong_flag_is_named_and_leaves_no_run(flags, words, market, tmp_path, refused):
    given = [*market.vector_flags, "--run_dir", str(tmp_path / "run"), *flags]
    assert words in refused(main, given)
    assert not (tmp_path / "run").exists()
