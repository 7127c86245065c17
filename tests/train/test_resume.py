"""A run that was killed goes on where its last finished epoch ended."""

from pathlib import Path

import pytest

from tests.runs import lines_of, predictions, train_make, train_ranker
from tests.small_market import SmallMarket, write_small_market
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.train import fit


class Killed(BaseException):
    """What the process does not survive."""


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"))


def dies_before(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Training is killed at the start of ``epoch``, counted from 0."""
    whole = fit.train_epoch

    def train_epoch(distributed, train, run, now):
        if now == epoch:
            raise Killed
        return whole(distributed, train, run, now)

    patch.setattr(fit, "train_epoch", train_epoch)


def epochs_of(run_dir: Path) -> list[dict]:
    """Epoch lines but for their speed."""
    lines = lines_of(run_dir, "epoch")
    return [{k: v for k, v in line.items() if k != "impressions_per_s"} for line in lines]


@pytest.mark.parametrize("killed_at", [0, 1])
def test_a_resumed_ranker_is_the_one_that_was_never_killed(
    killed_at, market, tmp_path, monkeypatch
):
    more = ("--epochs", "2", "--test_auc", "true")
    whole = train_ranker(market, tmp_path / "whole", "simtier", *more)
    with monkeypatch.context() as patch:
        dies_before(patch, killed_at)
        with pytest.raises(Killed):
            train_ranker(market, tmp_path / "half", "simtier", *more)
    half = train_ranker(market, tmp_path / "half", "simtier", *more, "--resume", "true")
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (whole, half)]
    assert alike[0] == alike[1]


def test_a_resumed_make_is_the_one_that_was_never_killed(market, tmp_path, monkeypatch):
    dropout = ("--dropout", "0.3")
    whole = train_make(market, tmp_path / "whole", *dropout)
    with monkeypatch.context() as patch:
        dies_before(patch, 1)
        with pytest.raises(Killed):
            train_make(market, tmp_path / "half", *dropout)
    half = train_make(market, tmp_path / "half", *dropout, "--resume", "true")
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)


def test_each_epoch_has_an_order_of_its_own(market, tmp_path, monkeypatch):
    whole, asked = RequestLoader.epoch, []
    monkeypatch.setattr(
        RequestLoader, "epoch", lambda self, epoch: asked.append(epoch) or whole(self, epoch)
    )
    train_ranker(market, tmp_path / "run", "id", "--epochs", "3")
    assert asked == [0, 1, 2]


def test_resuming_a_finished_run_changes_nothing(market, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    before = (run_dir / "metrics.jsonl").read_text()
    train_ranker(market, run_dir, "id", "--resume", "true")
    assert (run_dir / "metrics.jsonl").read_text() == before
