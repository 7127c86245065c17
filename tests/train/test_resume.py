"""A run that stopped anywhere goes on as if it had not, and ends with the same bits."""

from pathlib import Path

import pytest

from tests.runs import Stopped, lines_of, predictions, stop_before, train_make, train_ranker
from tests.small_market import SmallMarket, write_small_market
from torchrec_mm.data.loader import RequestLoader

STEPS = 4  # of an epoch: 60 requests, 16 a batch
EVERY_TWO = ("--checkpoint_steps", "2")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(autouse=True)
def each_step_is_logged(monkeypatch):
    monkeypatch.setattr("torchrec_mm.train.fit.LOG_EVERY_STEPS", 1)


def epochs_of(run_dir: Path) -> list[dict]:
    """Epoch lines but for their speed."""
    lines = lines_of(run_dir, "epoch")
    return [{k: v for k, v in line.items() if k != "impressions_per_s"} for line in lines]


def stopped_and_resumed(train, step: int) -> Path:
    """The run that ``train(*more)`` makes, stopped before ``step`` and resumed."""
    with pytest.MonkeyPatch.context() as patch:
        stop_before(patch, step)
        with pytest.raises(Stopped):
            train()
    return train("--resume", "true")


# Before the first checkpoint, right after one, between two, in the second epoch, at its end.
@pytest.mark.parametrize("step", [1, 2, 3, STEPS, 2 * STEPS - 1])
def test_a_resumed_ranker_is_the_one_that_never_stopped(step, market, tmp_path):
    more = ("--epochs", "2", "--test_auc", "true", *EVERY_TWO)
    whole = train_ranker(market, tmp_path / "whole", "simtier", *more)

    def train(*flags: str) -> Path:
        return train_ranker(market, tmp_path / "half", "simtier", *more, *flags)

    half = stopped_and_resumed(train, step)
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (whole, half)]
    assert alike[0] == alike[1]


def test_a_resumed_make_drops_out_what_it_would_have(market, tmp_path):
    more = ("--dropout", "0.3", "--warmup_steps", "6", *EVERY_TWO)
    whole = train_make(market, tmp_path / "whole", *more)
    half = stopped_and_resumed(
        lambda *flags: train_make(market, tmp_path / "half", *more, *flags), step=3
    )
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)


def test_lines_of_any_spacing_are_those_of_the_run_that_never_stopped(
    market, tmp_path, monkeypatch
):
    monkeypatch.setattr("torchrec_mm.train.fit.LOG_EVERY_STEPS", 3)
    whole = train_ranker(market, tmp_path / "whole", "id", *EVERY_TWO)
    half = stopped_and_resumed(
        lambda *flags: train_ranker(market, tmp_path / "half", "id", *EVERY_TWO, *flags), step=2
    )
    assert [line["step"] for line in lines_of(half, "step")] == [3, 4]
    assert lines_of(half, "step") == lines_of(whole, "step")


def test_every_request_is_learned_from_once_an_epoch(market, tmp_path, monkeypatch):
    whole, rows = RequestLoader.epoch, []

    def watched(self, *args):
        for batch in whole(self, *args):
            rows.append(batch.rows.tolist())
            yield batch

    monkeypatch.setattr(RequestLoader, "epoch", watched)
    more = ("--epochs", "2", "--checkpoint_steps", "1")
    stopped_and_resumed(
        lambda *flags: train_ranker(market, tmp_path / "run", "id", *more, *flags), step=5
    )
    first, second = rows[:STEPS], rows[-STEPS:]
    assert len(rows) > 2 * STEPS  # the pipeline reads ahead: what it had read is read again
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(60))
    assert first != second


def test_resuming_a_finished_run_changes_nothing(market, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    before = (run_dir / "metrics.jsonl").read_text()
    train_ranker(market, run_dir, "id", "--resume", "true")
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_a_finished_run_may_be_given_more_epochs(market, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    train_ranker(market, run_dir, "id", "--epochs", "2", "--resume", "true")
    whole = train_ranker(market, tmp_path / "whole", "id", "--epochs", "2")
    assert lines_of(run_dir, "step") == lines_of(whole, "step")
