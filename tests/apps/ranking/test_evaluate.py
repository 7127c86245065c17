"""apps.evaluate: metrics.json as promised, its figures counted again in plain Python."""

import json
import math
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

import apps.encode
import apps.evaluate
import apps.train_ranker
from tests.helpers.runs import (
    SMALL_RANKER,
    evaluate,
    lines_of,
    predictions,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import (
    DAY_S,
    NEVER_SHOWN,
    WITHOUT_VECTOR,
    SmallMarket,
    read_parquet,
    rewrite,
    write_vectors,
)
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

METHODS = ("bias", "id", "make", "simtier+make")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    """A trained run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    flags = {method: ("--seed", "3", "--epochs", "2", "--test_auc", "true") for method in METHODS}
    return {
        method: train_ranker(market, folder / method, method, *flags[method], make=make)
        for method in METHODS
    }


def spoilt_copy(run_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_dir, tmp_path / "run")


def auc(pairs: list[tuple[int, float]]) -> float | None:
    """Share of (click, no click) pairs in the right order, ties one half."""
    clicks = [logit for label, logit in pairs if label]
    others = [logit for label, logit in pairs if not label]
    if not clicks or not others:
        return None
    won = sum((c > o) + (c == o) / 2 for c in clicks for o in others)
    return won / len(clicks) / len(others)


def gauc(rows: list[tuple[int, int, float]]) -> float | None:
    by_user = defaultdict(list)
    for user, label, logit in rows:
        by_user[user].append((label, logit))
    both = [(len(pairs), auc(pairs)) for pairs in by_user.values() if auc(pairs) is not None]
    if not both:
        return None
    return sum(count * value for count, value in both) / sum(count for count, _ in both)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_one_row_an_impression_in_order_of_the_data(method, market, runs, tmp_path):
    rows = predictions(market, runs[method], tmp_path / "p.parquet")
    test = read_parquet(market.data / "requests" / "test")
    candidates = test["candidate_item_ids"]
    assert rows["item_id"] == sum(candidates, [])
    assert rows["label"] == sum(test["labels"], [])
    assert rows["request"] == [r for r, items in enumerate(candidates) for _ in items]
    assert rows["user_id"] == [test["user_id"][r] for r in rows["request"]]
    assert all(math.isfinite(logit) for logit in rows["logit"])
    assert list(rows) == ["request", "user_id", "item_id", "label", "logit"]


@pytest.mark.parametrize("method", METHODS)
def test_every_figure_is_what_the_predictions_say(method, market, runs, tmp_path):
    rows = predictions(market, runs[method], tmp_path / "p.parquet")
    metrics = json.loads((runs[method] / "metrics.json").read_text())
    impressions = list(zip(rows["user_id"], rows["label"], rows["logit"], strict=True))
    pairs = [pair for _, *pair in impressions]
    losses = [math.log1p(math.exp(-logit if label else logit)) for label, logit in pairs]
    users = defaultdict(set)
    for user, label, _ in impressions:
        users[user].add(label)
    assert set(metrics) == {
        *("auc", "gauc", "log_loss", "impressions", "users", "gauc_users", "vector_coverage"),
        *("slices", "method", "seed", "checkpoint", "vectors", "unseen"),
    }
    assert metrics["auc"] == pytest.approx(auc(pairs))
    assert metrics["gauc"] == pytest.approx(gauc(impressions))
    assert metrics["log_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert metrics["impressions"] == len(impressions)
    assert metrics["users"] == len(users)
    assert metrics["gauc_users"] == sum(len(labels) == 2 for labels in users.values())
    assert (metrics["method"], metrics["seed"]) == (method, 3)
    assert Path(metrics["checkpoint"]) == find_checkpoint(runs[method] / "checkpoints").folder


def test_slices_are_by_frequency_in_training_and_by_age(market, runs, tmp_path):
    rows = predictions(market, runs["id"], tmp_path / "p.parquet")
    slices = json.loads((runs["id"] / "metrics.json").read_text())["slices"]
    train = read_parquet(market.data / "requests" / "train")["candidate_item_ids"]
    shown = Counter(sum(train, []))
    items = read_parquet(market.data / "items")
    created_at = dict(zip(items["item_id"], items["created_at"], strict=True))
    times = read_parquet(market.data / "requests" / "test")["timestamp"]
    members = defaultdict(list)
    for user, item, label, logit, request in zip(
        *(rows[name] for name in ("user_id", "item_id", "label", "logit", "request")), strict=True
    ):
        count = shown[item]
        limits = {"0": 0, "1-5": 5, "6-20": 20, "21-100": 100}
        slot = next((name for name, most in limits.items() if count <= most), ">100")
        members[f"item_frequency/{slot}"].append((user, label, logit))
        if created_at[item] is not None:
            young = times[request] - created_at[item] < DAY_S
            members["item_age/<24h" if young else "item_age/>=24h"].append((user, label, logit))
    assert NEVER_SHOWN not in shown and members["item_frequency/0"]
    assert set(slices) == {
        *(f"item_frequency/{name}" for name in ("0", "1-5", "6-20", "21-100", ">100")),
        *("item_age/<24h", "item_age/>=24h"),
    }
    for name, figures in slices.items():
        pairs = [pair for _, *pair in members[name]]
        assert figures["impressions"] == len(pairs)
        assert figures["auc"] == pytest.approx(auc(pairs))
        assert figures["gauc"] == pytest.approx(gauc(members[name]))


@pytest.mark.parametrize("method", ["id", "make", "simtier+make"])
def test_a_loaded_checkpoint_scores_as_the_model_did_in_training(method, market, runs):
    trained = lines_of(runs[method], "epoch")[-1]["test_auc"]
    assert evaluate(market, runs[method])["auc"] == pytest.approx(trained, abs=1e-9)


def test_coverage_counts_candidates_and_behaviours_that_have_a_vector(market, runs):
    test = read_parquet(market.data / "requests" / "test")
    known = set(read_parquet(market.data / "items")["item_id"][4:])
    seen = sum(test["candidate_item_ids"], []) + sum(test["behaviour_item_ids"], [])
    metrics = evaluate(market, runs["make"])
    assert metrics["vector_coverage"] == pytest.approx(sum(i in known for i in seen) / len(seen))
    assert metrics["vectors"] == {"encoder": "scl", "modality": "image"}
    assert evaluate(market, runs["id"])["vector_coverage"] is None


def test_coverage_is_that_of_all_ranks(market, runs, monkeypatch):
    alone = evaluate(market, runs["make"])["vector_coverage"]
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.mul_(torch.tensor([1, 2])))
    assert evaluate(market, runs["make"])["vector_coverage"] == pytest.approx(alone / 2)


def test_random_vectors_make_the_control(market, tmp_path):
    control = SmallMarket(market.data, tmp_path / "random")
    write_vectors(control.vectors, encoder="random")
    run_dir = train_ranker(control, tmp_path / "run", "simtier")
    assert evaluate(control, run_dir)["method"] == "simtier/random"


def test_batch_size_does_not_change_what_is_measured(market, runs, tmp_path):
    whole = predictions(market, runs["simtier+make"], tmp_path / "whole.parquet")
    evaluate(
        market,
        runs["simtier+make"],
        *("--batch_requests", "4", "--predictions", str(tmp_path / "small.parquet")),
    )
    small = pq.read_table(tmp_path / "small.parquet").to_pydict()
    assert small["logit"] == pytest.approx(whole["logit"], abs=1e-5)


def test_one_class_in_the_test_set_gives_null_and_not_nan(market, runs, tmp_path):
    other = SmallMarket(shutil.copytree(market.data, tmp_path / "data"), market.vectors)
    folder = other.data / "requests" / "test"
    rewrite(folder, labels=[[0] * len(labels) for labels in read_parquet(folder)["labels"]])
    metrics = evaluate(other, runs["bias"])
    assert metrics["auc"] is None and metrics["gauc"] is None
    assert metrics["gauc_users"] == 0
    assert math.isfinite(metrics["log_loss"])


def test_vectors_may_have_moved_but_not_be_of_another_origin(market, runs, tmp_path, refused):
    moved = shutil.copytree(market.vectors, tmp_path / "moved")
    before = evaluate(market, runs["make"])
    assert evaluate(market, runs["make"], "--vectors", str(moved)) == before
    write_vectors(tmp_path / "other", seed=5)
    flags = ["--run_dir", str(runs["make"]), *market.flags, "--vectors", str(tmp_path / "other")]
    assert "vectors must have the origin of run_dir" in refused(apps.evaluate.main, flags)


def test_vectors_of_new_items_may_be_added(market, runs, tmp_path):
    known = ItemVectors.open(market.vectors)
    added = np.ones((len(WITHOUT_VECTOR), known.width))
    write_item_vectors(
        tmp_path / "more",
        np.concatenate([known.item_ids, WITHOUT_VECTOR]),
        np.concatenate([known.values, added]),
        **{"dtype": "float32", "encoder": "scl", "modality": "image", "origin": known.origin},
    )
    before = evaluate(market, runs["make"])["vector_coverage"]
    after = evaluate(market, runs["make"], "--vectors", str(tmp_path / "more"))
    assert after["vector_coverage"] > before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: shutil.rmtree(run), "run must be the folder of a ranker run"),
        (lambda run: (run / "config.yaml").unlink(), "run must be the folder of a ranker run"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "run must hold a checkpoint"),
        (lambda run: (run / "vocabularies.safetensors").unlink(), "must be the vocabularies of a"),
        (lambda run: (run / "item_frequency.safetensors").unlink(), "must be the item frequencies"),
        (lambda run: edit_spec(run, embedding_dim=8), "must fit the model: model."),
    ],
)
def test_a_spoilt_run_is_named_and_gets_no_metrics(spoil, words, market, runs, tmp_path, refused):
    run_dir = spoilt_copy(runs["id"], tmp_path)
    (run_dir / "metrics.json").unlink(missing_ok=True)
    spoil(run_dir)
    assert words in refused(apps.evaluate.main, [*market.flags, "--run_dir", str(run_dir)])
    assert not (run_dir / "metrics.json").exists()


def edit_spec(run_dir: Path, **changes) -> None:
    model = json.loads((run_dir / "model.json").read_text())
    model["spec"] |= changes
    (run_dir / "model.json").write_text(json.dumps(model))


def test_all_tensors_that_do_not_fit_are_named(market, runs, tmp_path, refused):
    run_dir = spoilt_copy(runs["id"], tmp_path)
    edit_spec(run_dir, hidden=[8, 4, 2])
    line = refused(apps.evaluate.main, [*market.flags, "--run_dir", str(run_dir)])
    assert "model.network.mlp.layers.2.weight is missing" in line
    assert "model.network.mlp.logit.weight is (1, 4), not (1, 2)" in line


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("requests/test", {"city": None}, "must have the column city that the ranker was"),
        ("items", {"shop_id": None}, "must have the column shop_id that the ranker was"),
        ("items", {"item_id": list(range(24))}, "candidate_item_ids must hold ids of items/ only"),
    ],
)
def test_data_that_does_not_fit_the_run_is_named(
    split, changes, words, market, runs, tmp_path, refused
):
    data = shutil.copytree(market.data, tmp_path / "data")
    rewrite(data / split, **changes)
    run_dir = spoilt_copy(runs["id"], tmp_path)
    (run_dir / "metrics.json").unlink(missing_ok=True)
    assert words in refused(apps.evaluate.main, ["--data", str(data), "--run_dir", str(run_dir)])
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.parametrize("method", ["bias", "make"])
def test_a_run_needs_nothing_else_from_any_working_directory(
    method, market, runs, tmp_path, monkeypatch
):
    wanted = evaluate(market, runs[method])
    shutil.copytree(market.data, tmp_path / "data")
    shutil.copytree(market.vectors, tmp_path / "vectors")
    here = SmallMarket(Path("data"), Path("vectors"))
    monkeypatch.chdir(tmp_path)
    make = runs["id"].parent / "make_itself"
    train_ranker(here, Path("run"), method, "--seed", "3", "--epochs", "2", make=make)
    monkeypatch.chdir("/")
    apps.evaluate.main(["--run_dir", str(tmp_path / "run")])
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found | {"checkpoint": ""} == wanted | {"checkpoint": ""}


def test_a_run_on_an_encoded_data_set_scores_that_and_no_other(market, tmp_path, refused):
    encoded, other, run_dir = (tmp_path / name for name in ("encoded", "other", "run"))
    apps.encode.main([*market.flags, "--run_dir", str(encoded), "--min_count", "2"])
    apps.encode.main([*market.flags, "--run_dir", str(other), "--min_count", "3"])
    apps.train_ranker.main(["--encoded", str(encoded), "--run_dir", str(run_dir), *SMALL_RANKER])
    apps.evaluate.main(["--run_dir", str(run_dir)])
    by_itself = json.loads((run_dir / "metrics.json").read_text())
    assert evaluate(market, run_dir)["auc"] == by_itself["auc"]
    line = refused(apps.evaluate.main, ["--run_dir", str(run_dir), "--encoded", str(other)])
    assert "encoded must have the vocabulary of " in line
    shutil.rmtree(encoded)
    line = refused(apps.evaluate.main, ["--run_dir", str(run_dir)])
    assert f"encoded must be given: {run_dir}/config.yaml names {encoded}, which is gone" in line


def test_inputs_that_are_gone_are_named(market, tmp_path, refused):
    moved = SmallMarket(tmp_path / "data", tmp_path / "vectors")
    shutil.copytree(market.data, moved.data)
    shutil.copytree(market.vectors, moved.vectors)
    run_dir = train_ranker(moved, tmp_path / "run", "vector")
    for folder, name in ((moved.data, "data"), (moved.vectors, "vectors")):
        shutil.rmtree(folder)
        line = refused(apps.evaluate.main, ["--run_dir", str(run_dir)])
        assert f"{name} must be given: {run_dir}/config.yaml names {folder}, which is gone" in line
    assert evaluate(market, run_dir, "--vectors", str(market.vectors))["impressions"]


def test_data_and_encoded_together_are_refused(market, runs, refused):
    flags = [*market.flags, "--encoded", "e", "--run_dir", str(runs["id"])]
    assert "data must not be given with encoded, got " in refused(apps.evaluate.main, flags)


def test_vectors_that_the_run_does_not_use_are_refused(market, runs, refused):
    flags = [*market.vector_flags, "--run_dir", str(runs["id"])]
    told = refused(apps.evaluate.main, flags)
    assert "vectors must not be given for a run of method id, got" in told


def test_a_make_run_is_no_ranker_run(market, runs, refused):
    make = runs["id"].parent / "make_itself"
    line = refused(apps.evaluate.main, [*market.flags, "--run_dir", str(make)])
    assert "must be a ranker run, got a make run" in line
