"""Weights through every command: what is learned, on any ranks, resumed, and measured."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.predict
import apps.train_ranker
from tests.helpers.runs import (
    evaluate,
    lines_of,
    make_flags,
    predictions,
    ranker_flags,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import (
    SmallMarket,
    add_weights,
    read_parquet,
    rewrite,
    write_small_market,
)
from tests.helpers.two_ranks import Command, run_on_two_ranks
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import WEIGHT_SUMS, EncodedRequests
from torchrec_mm.errors import InputError
from torchrec_mm.metrics.log_loss import losses_of

MORE = ("--epochs", "2", "--checkpoint_steps", "2", "--batch_requests", "4")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory) -> SmallMarket:
    """The small market, its impressions weighted; those of every fifth request weigh nothing."""
    market = write_small_market(tmp_path_factory.mktemp("weighted"))
    add_weights(market, "train", "test")
    return market


@pytest.fixture(scope="module")
def run(weighted, tmp_path_factory) -> Path:
    return train_ranker(weighted, tmp_path_factory.mktemp("runs") / "id", "id", *MORE)


def flat(folder: Path, name: str) -> np.ndarray:
    return np.concatenate(read_parquet(folder)[name])


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


@pytest.mark.slow
def test_two_ranks_learn_what_one_does_of_batches_that_weigh_nothing_too(weighted, run, tmp_path):
    make, alone = tmp_path / "make", train_make(weighted, tmp_path / "alone")
    one_each = ("--batch_requests", "1")
    single = train_ranker(weighted, tmp_path / "single", "id", *one_each)
    run_on_two_ranks(
        tmp_path,
        [
            Command("train_ranker", [*ranker_flags(weighted, tmp_path / "id", "id"), *MORE]),
            Command("train_make", make_flags(weighted, make)),
            Command("train_ranker", [*ranker_flags(weighted, tmp_path / "one", "id"), *one_each]),
            Command("evaluate", [*weighted.flags, "--run_dir", str(tmp_path / "one")]),
        ],
    )
    for there, here in ((tmp_path / "id", run), (make, alone), (tmp_path / "one", single)):
        assert losses(there) == pytest.approx(losses(here), rel=1e-5)
    assert losses(single).count(0.0) >= 12  # every fifth of 60 requests
    there = json.loads((tmp_path / "one" / "metrics.json").read_text())
    here = evaluate(weighted, single)
    assert there["log_loss"] == pytest.approx(here["log_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_run_that_stopped_ends_with_the_bits_of_one_that_did_not(weighted, run, tmp_path):
    train = partial(train_ranker, weighted, tmp_path / "half", "id", *MORE)
    with stopped_before(7):
        train()
    half = train("--resume", "true")
    assert lines_of(half, "step") == lines_of(run, "step")
    alike = [predictions(weighted, r, tmp_path / f"{r.name}.parquet") for r in (run, half)]
    assert alike[0] == alike[1]


@pytest.mark.parametrize("method", ["bias", "id"])
def test_log_loss_is_weighted_and_auc_is_not(method, weighted, tmp_path):
    run_dir = train_ranker(weighted, tmp_path / method, method)
    told = predictions(weighted, run_dir, tmp_path / "p.parquet")
    figures = json.loads((run_dir / "metrics.json").read_text())
    each = losses_of(np.array(told["label"]), np.array(told["logit"], np.float32))
    weights = flat(weighted.data / "requests" / "test", "weights")
    assert figures["log_loss"] == pytest.approx(np.average(each, weights=weights), rel=1e-6)
    plain = write_small_market(tmp_path / "plain")
    without = evaluate(plain, run_dir)
    assert without["log_loss"] == pytest.approx(each.mean(), rel=1e-6)
    assert {n: figures[n] for n in ("auc", "gauc")} == {n: without[n] for n in ("auc", "gauc")}


def test_without_weight_in_testing_there_is_no_log_loss(run, tmp_path):
    market = write_small_market(tmp_path)
    folder = market.data / "requests" / "test"
    rewrite(folder, weights=[[0.0] * len(labels) for labels in read_parquet(folder)["labels"]])
    assert evaluate(market, run)["log_loss"] is None


def test_what_weighs_nothing_might_as_well_have_another_label(weighted, run, tmp_path):
    market = write_small_market(tmp_path)
    add_weights(market, "train")
    folder = market.data / "requests" / "train"
    columns = read_parquet(folder)
    labels = [
        [label if weight else 1 - label for label, weight in zip(*both, strict=True)]
        for both in zip(columns["labels"], columns["weights"], strict=True)
    ]
    assert labels != columns["labels"]
    rewrite(folder, labels=labels)
    other = train_ranker(market, tmp_path / "other", "id", *MORE)
    assert losses(other) == losses(run)


def test_the_logit_begins_at_the_click_rate_by_weight(weighted, run):
    folder = weighted.data / "requests" / "train"
    rate = np.average(flat(folder, "labels"), weights=flat(folder, "weights"))
    assert json.loads((run / "model.json").read_text())["spec"]["base_rate"] == pytest.approx(rate)


def test_training_weights_that_are_all_0_are_refused(tmp_path, refused):
    market = write_small_market(tmp_path)
    folder = market.data / "requests" / "train"
    rewrite(folder, weights=[[0.0] * len(labels) for labels in read_parquet(folder)["labels"]])
    line = refused(apps.train_ranker.main, ranker_flags(market, tmp_path / "run", "id"))
    assert "requests/train column weights must hold one above 0, got 0 for all" in line


def test_requests_to_score_need_none_and_lose_nothing_by_having_them(weighted, run, tmp_path):
    plain, found = write_small_market(tmp_path), []
    for market in (weighted, plain):
        requests, output = market.data / "requests" / "test", tmp_path / "scores.parquet"
        flags = ["--run_dir", run, "--requests", requests, "--output", output]
        apps.predict.main(list(map(str, flags)))
        found.append(pq.read_table(output).to_pydict())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda sums: sums[:-1], "weight_sums.npy must be \\(60, 2\\), got \\(59, 2\\)"),
        (lambda sums: sums + 1, "column weights must have the sums that lie beside it"),
    ],
)
def test_sums_that_are_not_those_of_the_weights_are_refused(spoil, words, weighted, tmp_path):
    encode_folder(weighted.data, ("train",), tmp_path / "out", max_behaviours=50)
    path = tmp_path / "out" / "requests" / "train" / WEIGHT_SUMS
    np.save(path, spoil(np.load(path)))
    with pytest.raises(InputError, match=words):
        data = EncodedRequests(tmp_path / "out", "train")
        list(map(data.read, data.groups))
