"""Further behaviour sequences through every command, on any ranks, resumed, of any length."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.encode
import apps.plan
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
    EVENTS,
    ITEM_IDS,
    SmallMarket,
    add_sequences,
    add_weights,
    read_parquet,
    rewrite,
    write_small_market,
)
from tests.helpers.two_ranks import Command, run_on_two_ranks

pytestmark = pytest.mark.slow

METHODS = ("id", "simscore", "simtier+make", "muse")
MORE = ("--epochs", "2", "--checkpoint_steps", "3")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    """The small market with two further sequences, and weights."""
    market = write_small_market(tmp_path_factory.mktemp("further"))
    add_sequences(market)
    add_weights(market, "train", "test")
    return market


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    runs = {m: train_ranker(market, folder / m, m, *MORE, make=make) for m in METHODS}
    return runs | {"make_itself": make}


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


def scores(run_dir: Path, requests: Path, output: Path, *more: str) -> list[list[float]]:
    flags = ["--run_dir", run_dir, "--requests", requests, "--output", output, *more]
    apps.predict.main(list(map(str, flags)))
    return pq.read_table(output)["click_probabilities"].to_pylist()


def test_two_ranks_learn_and_predict_what_one_does(market, runs, tmp_path):
    """With vectors in their memory too; batches of one request leave a rank without any."""
    commands = [Command("train_make", make_flags(market, tmp_path / "make_itself"))]
    requests = market.data / "requests" / "test"
    for method in METHODS:
        storage = ("--vector_storage", "sharded") if method != "id" else ()
        train = ranker_flags(market, tmp_path / method, method, runs["make_itself"])
        commands.append(Command("train_ranker", [*train, *MORE, *storage], "row_wise"))
        score = ["--run_dir", runs[method], "--requests", requests, "--batch_requests", "1"]
        output = ("--output", str(tmp_path / f"{method}.parquet"))
        commands.append(Command("predict", [*map(str, score), *output, *storage]))
    run_on_two_ranks(tmp_path, commands)
    for name, run in runs.items():
        assert losses(tmp_path / name) == pytest.approx(losses(run), rel=1e-5)
    for method in METHODS:
        here = scores(runs[method], requests, tmp_path / "here.parquet")
        there = pq.read_table(tmp_path / f"{method}.parquet")["click_probabilities"].to_pylist()
        assert sum(there, []) == pytest.approx(sum(here, []), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_stopped_ends_with_the_bits_of_one_that_did_not(method, market, runs, tmp_path):
    make = runs["make_itself"]
    train = partial(train_ranker, market, tmp_path / "half", method, *MORE, make=make)
    with stopped_before(5):
        train()
    half = train("--resume", "true")
    assert lines_of(half, "step") == lines_of(runs[method], "step")
    both = (runs[method], half)
    alike = [predictions(market, run, tmp_path / f"{run.name}.parquet") for run in both]
    assert alike[0] == alike[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_sequence_counts_in_predictions(method, market, runs, tmp_path):
    requests = market.data / "requests" / "test"
    found = [scores(runs[method], requests, tmp_path / "scores.parquet")]
    columns = read_parquet(requests)
    for event in EVENTS:
        other = tmp_path / event
        lists = [[*items, ITEM_IDS[9]] for items in columns[f"{event}_item_ids"]]
        (other / "test").mkdir(parents=True)
        pq.write_table(pq.read_table(requests / "part.parquet"), other / "test" / "part.parquet")
        rewrite(other / "test", **{f"{event}_item_ids": lists})
        found.append(scores(runs[method], other / "test", tmp_path / "scores.parquet"))
    assert len({str(each) for each in found}) == 3
    assert evaluate(market, runs[method])["impressions"] > 0


def test_requests_to_score_must_have_each_of_them_and_may_have_more(
    market, runs, tmp_path, refused, caplog
):
    plain = write_small_market(tmp_path / "plain")
    flags = ["--run_dir", runs["id"], "--output", tmp_path / "scores.parquet", "--requests"]
    line = refused(apps.predict.main, [*flags, plain.data / "requests" / "test"])
    assert "test must have a column cart_item_ids, got" in line
    run = train_ranker(plain, tmp_path / "run", "id")
    requests = market.data / "requests" / "test"
    with caplog.at_level(logging.WARNING):
        more = scores(run, requests, tmp_path / "more.parquet")
    assert "not trained with are not used: cart_item_ids, passed_item_ids" in caplog.text
    assert more == scores(run, plain.data / "requests" / "test", tmp_path / "none.parquet")


def test_an_encoded_folder_trains_the_same_ranker(market, runs, tmp_path):
    encode = ["--data", str(market.data), "--run_dir", str(tmp_path / "encoded")]
    apps.encode.main([*encode, "--min_count", "2", "--max_behaviours", "50"])
    flags = ranker_flags(market, tmp_path / "run", "simscore")
    del flags[: len(market.flags)]
    apps.train_ranker.main(["--encoded", str(tmp_path / "encoded"), *flags, *MORE])
    assert losses(tmp_path / "run") == losses(runs["simscore"])
    plan = ["--train", str(tmp_path / "run" / "config.yaml"), "--device", "cpu", "--json"]
    apps.plan.main(plan)


def test_a_sequence_of_ten_thousand_is_as_good_as_its_newest(tmp_path):
    market, rng = write_small_market(tmp_path, train=14, test=9), np.random.default_rng(0)
    runs = {}
    for most in (10_000, 50):
        for split in ("train", "test"):
            folder, rng = market.data / "requests" / split, np.random.default_rng(len(split))
            count = len(read_parquet(folder)["labels"])
            lists = [rng.choice(ITEM_IDS, 10_000).tolist()[-most:] for _ in range(count)]
            rewrite(folder, cart_item_ids=lists)
        runs[most] = train_ranker(market, tmp_path / f"{most}", "simscore")
    assert losses(runs[10_000]) == losses(runs[50])
    muse = train_ranker(market, tmp_path / "muse", "muse", "--searched_behaviours", "10000")
    assert np.isfinite(losses(muse)).all()


def test_what_a_run_says_of_itself_names_them(runs):
    spec = json.loads((runs["id"] / "model.json").read_text())["spec"]
    assert spec["sequences"] == [*EVENTS]
