"""Tables of raw ids through the commands: trained, stopped, gone on with, evaluated, planned."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import apps.export_tables
import apps.plan
import apps.train_ranker
from tests.helpers.runs import (
    evaluate,
    lines_of,
    predictions,
    ranker_flags,
    stopped_before,
    train_ranker,
)
from tests.helpers.small_market import ITEM_IDS, UNKNOWN_BEHAVIOURS, USER_IDS, SmallMarket, rewrite
from torchrec_mm.ranking.row_owners import EMPTY
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.run_folder import CHECKPOINTS

# Fewer rows than items, and one fallback row for all users without a row of their own.
TABLES = {
    "user_id": {"rows": 16, "interval_steps": 3, "partitions": 1},
    "item_id": {"rows": 16, "interval_steps": 2, "partitions": 2, "eviction": "lru"},
}
RAW = ("--zero_collision", json.dumps(TABLES))
MORE = (*RAW, "--epochs", "2", "--test_auc", "true", "--checkpoint_steps", "5")
METHODS = ("id", "muse")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> Path:
    """Runs of each method, ``whole``, and stopped in their second epoch, ``half``."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        train_ranker(market, folder / f"{method}-whole", method, *MORE)
        with stopped_before(6):
            train_ranker(market, folder / f"{method}-half", method, *MORE)
    return folder


def owners(run_dir: Path, feature: str) -> list[int]:
    """Raw ids that own a row of the run's checkpoint."""
    tables = "model.zero_collision_tables._managed_collision_collection"
    prefix = f"{tables}._managed_collision_modules.{feature}_table."
    ids = read_checkpoint(find_checkpoint(run_dir / CHECKPOINTS).folder, prefix)["ids"]
    return ids[ids != EMPTY].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_raw_ids_of_the_data_own_the_rows_of_the_checkpoint(method, runs):
    run_dir = runs / f"{method}-whole"
    assert set(owners(run_dir, "user_id")) == set(USER_IDS.tolist())
    items = owners(run_dir, "item_id")
    assert len(set(items)) == len(items) == 14  # all but one row of each partition
    assert set(items) <= {*ITEM_IDS.tolist(), *UNKNOWN_BEHAVIOURS.tolist()}
    assert set(items) != set(owners(runs / f"{method}-half", "item_id"))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_as_if_it_had_not_stopped(method, market, runs, tmp_path):
    whole, half = runs / f"{method}-whole", shutil.copytree(runs / f"{method}-half", tmp_path / "h")
    train_ranker(market, half, method, *MORE, "--resume", "true")
    for feature in TABLES:
        assert owners(half, feature) == owners(whole, feature)
    here, there = (predictions(market, run, tmp_path / "p.parquet") for run in (half, whole))
    assert here == there


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_finds_what_training_scored(method, market, runs):
    run_dir = runs / f"{method}-whole"
    in_training = lines_of(run_dir, "test_auc")[-1]["test_auc"]
    assert evaluate(market, run_dir)["auc"] == pytest.approx(in_training, abs=1e-9)


def test_users_who_own_no_row_all_read_the_same_one(market, runs, tmp_path):
    def logits(users: list[int]) -> list[float]:
        moved = SmallMarket(tmp_path / f"data-{users[0]}", market.vectors)
        shutil.copytree(market.data, moved.data)
        rewrite(moved.data / "requests" / "test", user_id=users)
        return predictions(moved, runs / "id-whole", tmp_path / "p.parquet")["logit"]

    new = logits(np.arange(1000, 1025).tolist())
    assert new == logits([-77] * 25)
    assert new != logits([int(USER_IDS[0])] * 25)


def test_a_row_with_an_owner_is_planned_with_32_bytes_more(runs, capsys):
    apps.plan.main(["--train", str(runs / "id-whole" / "config.yaml"), "--json"])
    (rank,) = json.loads(capsys.readouterr().out)["ranks"]
    assert rank["tables"]["item_id_table"]["weights"] == 16 * 4 * 4
    assert rank["tables"]["item_id_table"]["optimizer"] == 16 * (4 + 32)


def test_a_table_of_raw_ids_is_exported_with_the_owner_of_each_row(runs, tmp_path):
    run_dir = runs / "id-whole"
    for form in ("parquet", "safetensors"):
        flags = ["--run_dir", str(run_dir), "--output", str(tmp_path / form), "--format", form]
        apps.export_tables.main(flags)
    for name, rest in (("request/user_id", {15}), ("item/item_id", {7, 15})):
        saved = load_file(tmp_path / "safetensors" / f"{name}.safetensors")
        owned = saved["owner_ids"] != EMPTY
        assert saved["owner_ids"][owned].tolist() == owners(run_dir, name.split("/")[1])
        rows = pq.read_table(tmp_path / "parquet" / f"{name}.parquet").to_pydict()
        assert [i for i in rows["id"] if i is not None] == saved["owner_ids"][owned].tolist()
        assert np.array_equal(np.stack(rows["weights"]).astype(np.float32), saved["weights"])
        kinds = np.array(rows["kind"])
        assert np.array_equal(kinds == "known", owned)
        assert {*np.flatnonzero(kinds == "rest").tolist()} == rest


@pytest.mark.parametrize(
    ("method", "tables", "line"),
    [
        (
            "id",
            "{city: {rows: 32}}",
            "zero_collision must name user_id or item_id, the features whose raw ids an encoded "
            "data set keeps, got city",
        ),
        ("id", "{item_id: {rows: 33}}", "rows must be a multiple of partitions, 16, and"),
        ("id", "{item_id: {row: 32}}", "--zero_collision holds an unknown key: row"),
        ("bias", "{user_id: {rows: 32}}", "zero_collision must be empty with method bias, which"),
    ],
)
def test_what_no_table_can_be_is_one_line(method, tables, line, market, tmp_path, refused):
    flags = [*ranker_flags(market, tmp_path / "run", method), "--zero_collision", tables]
    assert refused(apps.train_ranker.main, flags).startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()
