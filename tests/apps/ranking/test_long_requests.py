"""Requests of any number of candidates, scored and learned from in batches that are bounded."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.predict
from tests.helpers.runs import (
    evaluate,
    lines_of,
    small_batches,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import SmallMarket, lengthen, write_small_market
from torchrec_mm.data.stream import collate
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.train.guards import Guard

METHODS = ("id", "simtier+make", "muse")
PADDED = 1200  # four or five of the small market's requests, or 23 candidates of one
LONG, CANDIDATES = (4, 11), 100


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    market = write_small_market(tmp_path_factory.mktemp("market"), train=14, test=13)
    lengthen(market, CANDIDATES, *LONG)
    return market


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    """Runs of each method, learned in small batches."""
    folder = tmp_path_factory.mktemp("runs")
    with small_batches(PADDED):
        make = train_make(market, folder / "train_make")
        runs = {name: train_ranker(market, folder / name, name, make=make) for name in METHODS}
    return runs | {"train_make": make}


def scored(market: SmallMarket, run_dir: Path, file: Path) -> tuple[dict, dict, dict]:
    """Figures, a row an impression, a row a request."""
    figures = evaluate(market, run_dir, "--predictions", str(file))
    requests = str(market.data / "requests" / "test")
    flags = ["--run_dir", str(run_dir), "--requests", requests, "--output", f"{file}.requests"]
    apps.predict.main(flags)
    return figures, *(pq.read_table(path).to_pydict() for path in (file, f"{file}.requests"))


def ranking_of(rows: dict, decimals: int = 30) -> tuple[float, float]:
    """AUC and GAUC of a row an impression, its logit rounded."""
    logits, labels = np.array(rows["logit"]).round(decimals), np.array(rows["label"])
    return auc(labels, logits), gauc(np.array(rows["user_id"]), labels, logits).gauc


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_pieces_are_scored_as_the_whole_request(method, market, runs, tmp_path):
    figures, impressions, requests = scored(market, runs[method], tmp_path / "whole")
    with small_batches(PADDED):
        again = scored(market, runs[method], tmp_path / "pieces")
    assert again[0]["log_loss"] == pytest.approx(figures["log_loss"], abs=1e-6)
    for found, rows in ((figures, impressions), (again[0], again[1])):
        assert (found["auc"], found["gauc"]) == pytest.approx(ranking_of(rows), abs=1e-9)
    # The last bits of a logit part pairs that are ties: an item that a request shows twice.
    whole, pieces = (ranking_of(rows, decimals=6) for rows in (impressions, again[1]))
    assert pieces == pytest.approx(whole, abs=1e-3)
    assert again[1].pop("logit") == pytest.approx(impressions.pop("logit"), abs=1e-5)
    scores = [sum(table.pop("click_probabilities"), []) for table in (requests, again[2])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert again[1:] == (impressions, requests)
    assert [len(requests["candidate_item_ids"][row]) for row in LONG] == [CANDIDATES] * 2


@pytest.mark.parametrize("name", [*METHODS, "train_make"])
def test_every_impression_is_learned_from_once_an_epoch(name, market, runs):
    labels = pq.read_table(market.data / "requests" / "train")["labels"].to_pylist()
    for line in lines_of(runs[name], "epoch"):
        assert line["impressions"] == sum(map(len, labels))


def test_training_holds_no_batch_above_the_bound(market, tmp_path, monkeypatch):
    sizes, real = [], collate.Collator.__call__

    def noted(self, *args, **kwargs):
        batch = real(self, *args, **kwargs)
        longest = (batch.most_candidates + 8) * (batch.most_behaviours + 32)
        sizes.append(len(batch.rows) * longest)
        return batch

    monkeypatch.setattr(collate.Collator, "__call__", noted)
    with small_batches(PADDED):
        train_ranker(market, tmp_path / "run", "id", "--test_auc", "true")
    assert len(sizes) > 20 and max(sizes) <= PADDED


def test_a_run_goes_on_in_the_middle_of_a_request(market, tmp_path, monkeypatch):
    whole, half, every = tmp_path / "whole", tmp_path / "half", ("--checkpoint_steps", "1")
    rows, add = [], Guard.add

    def noted(self, step):
        rows.append(step.rows.tolist())
        add(self, step)

    monkeypatch.setattr(Guard, "add", noted)
    with small_batches(PADDED):
        train_ranker(market, whole, "id")
        step = next(i for i in range(1, len(rows)) if rows[i] == rows[i - 1])
        with stopped_before(step):
            train_ranker(market, half, "id", *every)
        assert train_ranker(market, half, "id", *every, "--resume", "true")
    assert [line["loss"] for line in lines_of(half, "step")] == [
        line["loss"] for line in lines_of(whole, "step")
    ]
