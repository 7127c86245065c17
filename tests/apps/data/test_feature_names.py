"""Columns of any name: a feature under every name, or one line that says which name is taken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import apps.encode
import apps.evaluate
import apps.export_tables
import apps.predict
import apps.train_ranker
from tests.helpers.small_market import rewrite, write_parquet, write_small_market

# Of which owner does not matter, so there are some of each; what says all comes first.
REQUEST = ("a.b", "request/user_id", "", "candidates", "Größe", "null")
ITEM = ("a", "request/x", "labels", "type", "items", "training", "user_id_table", "A.b")
BEHAVIOUR = ("behaviour/a", "城 市", "title", "x" * 300)


def odd_folders(data: Path, requests: int = 400) -> None:
    """Clicks are a function of the first feature of ``REQUEST`` alone."""
    items, rng = np.arange(20), np.random.default_rng(0)
    write_parquet(data / "items", {"item_id": items} | {name: items % 4 for name in ITEM})
    for split, first in (("train", 0), ("test", requests)):
        says_all = rng.integers(0, 10, requests)
        columns = {
            "user_id": np.arange(first, first + requests),
            "behaviour_item_ids": [items[:2]] * requests,
            "candidate_item_ids": [items[i % 20 : i % 20 + 1] for i in range(requests)],
            "labels": [np.array([value < 5]) for value in says_all],
            **{name: rng.integers(0, 3, requests) for name in REQUEST},
            **{name: [rng.integers(0, 3, 2) for _ in range(requests)] for name in BEHAVIOUR},
            REQUEST[0]: 1000 + says_all,
        }
        write_parquet(data / "requests" / split, columns)


def test_features_of_odd_names_are_learned_from(tmp_path, refused):
    odd_folders(tmp_path / "data")
    flags = ["--method", "id", "--data", tmp_path / "data", "--run_dir", tmp_path / "run"]
    more = ["--epochs", "3", "--table_learning_rate", "0.5", "--min_count", "1"]
    more += ["--batch_requests", "32"]  # of few requests; steps enough to tell them apart
    apps.train_ranker.main([*map(str, flags), *more])
    apps.evaluate.main(["--run_dir", str(tmp_path / "run")])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["auc"] == 1
    tables = json.loads((tmp_path / "run" / "plan.json").read_text())["tables"]
    assert len(tables) == 2 + len(REQUEST) + len(ITEM) + len(BEHAVIOUR) + 1  # users' effects
    flags = ["--run_dir", tmp_path / "run", "--output", tmp_path / "tables"]
    line = refused(apps.export_tables.main, flags)
    assert "feature xxxxxxxxxxxxxxxxxxxx... must have a name of at most 200 bytes" in line


@pytest.mark.parametrize("method", ["id", "bias"])
def test_a_shared_name_ends_the_command_and_leaves_nothing(method, tmp_path, refused):
    market = write_small_market(tmp_path / "market", train=5, test=5)
    rewrite(market.data / "items", city=list(range(24)))
    flags = ["--method", method, *market.flags, "--run_dir", tmp_path / "runs" / "id"]
    line = refused(apps.train_ranker.main, flags)
    assert "feature city must not share its name with a column of items/" in line
    assert not list((tmp_path / "runs").glob("*"))


def test_rows_of_other_vocabularies_never_reach_the_tables(tmp_path, refused):
    """However alike they look: the fingerprint in meta.json is the run's."""
    market, run_dir = write_small_market(tmp_path / "market"), tmp_path / "run"
    for name, min_count in (("mine", "2"), ("theirs", "6")):
        flags = ["--data", market.data, "--min_count", min_count, "--run_dir", tmp_path / name]
        apps.encode.main(list(map(str, flags)))
    flags = ["--method", "id", "--encoded", tmp_path / "mine", "--run_dir", run_dir]
    apps.train_ranker.main(list(map(str, flags)))
    mine, theirs = (tmp_path / name / "meta.json" for name in ("mine", "theirs"))
    fingerprint = json.loads(mine.read_text())["vocabulary"]
    theirs.write_text(json.dumps(json.loads(theirs.read_text()) | {"vocabulary": fingerprint}))
    flags = ["--run_dir", run_dir, "--encoded", tmp_path / "theirs"]
    line = refused(apps.evaluate.main, flags)
    assert "theirs must have 27 table rows for feature item_id, as the ranker has, got 25" in line
    shutil.copy(tmp_path / "theirs" / "vocabularies.safetensors", run_dir)
    requests = ["--requests", market.data / "requests" / "test", "--items", market.data / "items"]
    flags = ["--run_dir", run_dir, *requests, "--output", tmp_path / "scores.parquet"]
    line = refused(apps.predict.main, flags)
    assert f"must be the vocabularies that the run was trained with, {fingerprint[:12]}" in line
    assert not (tmp_path / "scores.parquet").exists() and not (run_dir / "metrics.json").exists()
