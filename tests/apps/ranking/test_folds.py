"""Rankers on a MAKE of several folds: whose word they take on which requests."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import apps.train_ranker
from tests.helpers.runs import (
    epochs_of,
    lines_of,
    predictions,
    ranker_flags,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import SmallMarket, read_parquet, rewrite, write_small_market
from torchrec_mm.data.stream.folds import folds_of
from torchrec_mm.ranking.frozen_make import FrozenMake
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint


@pytest.fixture(scope="module")
def make(market, tmp_path_factory) -> Path:
    return train_make(market, tmp_path_factory.mktemp("make") / "run")


@pytest.fixture
def asked(monkeypatch) -> list[tuple[bool, int]]:
    """Of each question to MAKE, whether the request's fold decides who answers, and requests."""
    call, asked = FrozenMake.__call__, []

    def watched(self, hits, ends, requests):
        asked.append((self.by_fold, len(requests)))
        return call(self, hits, ends, requests)

    monkeypatch.setattr(FrozenMake, "__call__", watched)
    return asked


def model_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "model.json").read_text())


def one_request_fewer(folder: Path) -> SmallMarket:
    """The small market without the last of its training requests."""
    market = write_small_market(folder)
    train = market.data / "requests" / "train"
    rewrite(train, **{name: values[:-1] for name, values in read_parquet(train).items()})
    return market


def test_folds_decide_on_the_requests_that_make_learned_from_and_on_no_others(
    market, make, asked, tmp_path, caplog
):
    run = train_ranker(market, tmp_path / "run", "make", "--test_auc", "true", make=make)
    # An epoch, and once more for the users' own effects.
    assert sum(count for by_fold, count in asked if by_fold) == 2 * 60
    assert sum(count for by_fold, count in asked if not by_fold) == 25
    model = model_of(run)
    assert (model["crosswise"], model["spec"]["make"]["folds"]) == (True, 2)
    assert "mean of all folds" not in caplog.text
    asked.clear()
    predictions(market, run, tmp_path / "predictions.parquet")
    assert asked and not any(by_fold for by_fold, _ in asked)


def test_on_other_requests_the_ranker_takes_the_mean_and_says_so(make, asked, tmp_path, caplog):
    other = one_request_fewer(tmp_path)
    with caplog.at_level(logging.WARNING):
        run = train_ranker(other, tmp_path / "run", "make", make=make)
    (line,) = {record.message for record in caplog.records if "folds" in record.message}
    assert "has folds of 60 / " in line and "the ranker trains on 59 / " in line
    assert "it takes the mean of all folds" in line
    assert not any(by_fold for by_fold, _ in asked) and model_of(run)["crosswise"] is False


def test_a_run_does_not_go_on_with_folds_of_other_requests(market, make, tmp_path, refused):
    run = train_ranker(market, tmp_path / "run", "make", make=make)
    other = train_make(one_request_fewer(tmp_path), tmp_path / "other")
    flags = [*ranker_flags(market, run, "make", other), "--resume"]
    assert "crosswise must stay True to resume" in refused(apps.train_ranker.main, flags)


def test_of_one_fold_nothing_is_said_or_written(market, tmp_path, caplog):
    make = train_make(market, tmp_path / "make", "--folds", "1")
    run = train_ranker(market, tmp_path / "run", "make", make=make)
    model = model_of(run)
    assert "crosswise" not in model and "folds" not in model["spec"]["make"]
    assert "folds" not in caplog.text


def test_a_ranker_on_folds_that_stopped_ends_with_the_bits_of_one_that_did_not(
    market, make, tmp_path
):
    more = ("--epochs", "2", "--checkpoint_steps", "3")
    whole = train_ranker(market, tmp_path / "whole", "simtier+make", *more, make=make)
    train = partial(train_ranker, market, tmp_path / "half", "simtier+make", *more, make=make)
    with stopped_before(5):
        train()
    half = train("--resume")
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)


@pytest.mark.parametrize("fold", [0, 1])
def test_make_is_the_same_whatever_was_clicked_in_its_own_fold(fold, market, tmp_path):
    """And is another one if the clicks of the other fold were others."""
    changed = write_small_market(tmp_path)
    train = changed.data / "requests" / "train"
    labels = read_parquet(train)["labels"]
    of_request = folds_of(np.arange(len(labels)), 2).tolist()
    turned = [
        [1 - label for label in of] if of_fold == fold else of
        for of, of_fold in zip(labels, of_request, strict=True)
    ]
    rewrite(train, labels=turned)
    runs = [train_make(each, tmp_path / f"{n}") for n, each in enumerate((market, changed))]
    before, after = (
        read_checkpoint(find_checkpoint(run / "checkpoints").folder, "model.make.") for run in runs
    )
    same = {name: torch.equal(weights, after[name]) for name, weights in before.items()}
    assert all(alike for name, alike in same.items() if name.startswith(f"{fold}."))
    assert not any(alike for name, alike in same.items() if name.startswith(f"{1 - fold}."))


def test_a_run_of_make_from_before_there_were_folds_goes_on_without(market, tmp_path):
    more = ("--checkpoint_steps", "2")
    whole = train_make(market, tmp_path / "whole", "--folds", "1", *more)
    with stopped_before(3):
        train_make(market, tmp_path / "half", "--folds", "1", *more)
    config = tmp_path / "half" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("folds:")))
    half = train_make(market, tmp_path / "half", *more, "--resume")
    assert lines_of(half, "step") == lines_of(whole, "step")
