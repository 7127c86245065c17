"""A run that stopped anywhere goes on as if it had not, and ends with the same bits."""

import shutil
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.runs import (
    epochs_of,
    lines_of,
    predictions,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import write_small_market, write_vectors
from torchrec_mm.errors import InputError
from torchrec_mm.train.guards import Guard

STEPS = 4  # of an epoch: 60 requests, 16 a batch
EVERY_TWO = ("--checkpoint_steps", "2")


def stopped_and_resumed(train, step: int) -> Path:
    """The run that ``train(*more)`` makes, stopped before ``step`` and resumed."""
    with stopped_before(step):
        train()
    return train("--resume", "true")


# Before the first checkpoint, right after one, between two, in the second epoch, at its end.
@pytest.mark.parametrize("step", [1, 2, 3, STEPS, 2 * STEPS - 1])
@pytest.mark.slow
def test_a_resumed_ranker_is_the_one_that_never_stopped(step, market, tmp_path):
    more = ("--epochs", "2", "--test_auc", "true", *EVERY_TWO)
    whole = train_ranker(market, tmp_path / "whole", "simtier", *more)
    train = partial(train_ranker, market, tmp_path / "half", "simtier", *more)
    half = stopped_and_resumed(train, step)
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (whole, half)]
    assert alike[0] == alike[1]


def test_a_resumed_make_drops_out_what_it_would_have(market, tmp_path):
    more = ("--dropout", "0.3", "--warmup_steps", "6", *EVERY_TWO)
    whole = train_make(market, tmp_path / "whole", *more)
    train = partial(train_make, market, tmp_path / "half", *more)
    half = stopped_and_resumed(train, step=3)
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)


@pytest.mark.slow
def test_a_resumed_ranker_keeps_its_make_whatever_became_of_the_run_it_came_from(market, tmp_path):
    make = tmp_path / "make"
    with stopped_before(5):
        train_make(market, make, *EVERY_TWO)
    whole = train_ranker(market, tmp_path / "whole", "simtier+make", *EVERY_TWO, make=make)
    train = partial(train_ranker, market, tmp_path / "half", "simtier+make", *EVERY_TWO, make=make)
    with stopped_before(3):
        train()
    train_make(market, make, *EVERY_TWO, "--resume", "true")
    half = train("--resume", "true")
    assert lines_of(half, "step") == lines_of(whole, "step")
    assert epochs_of(half) == epochs_of(whole)
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (whole, half)]
    assert alike[0] == alike[1]
    # What MAKE has learned since does make a difference.
    later = train_ranker(market, tmp_path / "later", "simtier+make", *EVERY_TWO, make=make)
    assert lines_of(later, "step") != lines_of(whole, "step")


def test_lines_of_any_spacing_are_those_of_the_run_that_never_stopped(market, tmp_path):
    more = (*EVERY_TWO, "--log_every_steps", "3")
    whole = train_ranker(market, tmp_path / "whole", "id", *more)
    train = partial(train_ranker, market, tmp_path / "half", "id", *more)
    half = stopped_and_resumed(train, step=2)
    assert [line["step"] for line in lines_of(half, "step")] == [3, 4]
    assert lines_of(half, "step") == lines_of(whole, "step")


def test_a_run_that_began_by_another_rule_goes_on_at_its_own_rate(market, tmp_path):
    """The rate of MAKE that no flag gives is 0.003 / 128 * 16 here."""
    more = ("--learning_rate", "0.003", *EVERY_TWO)
    whole = train_make(market, tmp_path / "whole", *more)
    with stopped_before(3):
        train_make(market, tmp_path / "half", *more)
    half = train_make(market, tmp_path / "half", *EVERY_TWO, "--resume")
    assert lines_of(half, "step") == lines_of(whole, "step")


def test_every_request_is_learned_from_once_an_epoch(market, tmp_path, monkeypatch):
    add, learned = Guard.add, []

    def watched(self, step):
        learned.extend(step.rows.tolist())
        add(self, step)

    monkeypatch.setattr(Guard, "add", watched)
    more = ("--epochs", "2", "--checkpoint_steps", "1")
    train = partial(train_ranker, market, tmp_path / "run", "id", *more)
    stopped_and_resumed(train, step=6)
    first, second = learned[:60], learned[60:]
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    (counted,) = {line["impressions"] for line in lines_of(tmp_path / "run", "epoch")}
    shown = pq.read_table(market.data / "requests" / "train")["labels"].to_pylist()
    assert counted == sum(map(len, shown))


def test_resuming_a_finished_run_changes_nothing(market, tmp_path):
    run_dir = train_ranker(market, tmp_path / "run", "id")
    before = (run_dir / "metrics.jsonl").read_text()
    train_ranker(market, run_dir, "id", "--resume", "true")
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_how_often_a_run_is_saved_changes_nothing(market, tmp_path):
    often = train_ranker(market, tmp_path / "often", "simtier", "--checkpoint_steps", "1")
    once = train_ranker(market, tmp_path / "once", "simtier")
    assert lines_of(often, "step") == lines_of(once, "step")
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (often, once)]
    assert alike[0] == alike[1]


def test_a_run_does_not_go_on_with_vectors_of_another_origin(tmp_path):
    market = write_small_market(tmp_path)
    run_dir = train_make(market, tmp_path / "run")
    shutil.rmtree(market.vectors)
    write_vectors(market.vectors, seed=5)
    with pytest.raises(InputError, match="vectors must stay 'imported-.* to resume .*, got 'imp"):
        train_make(market, run_dir, "--resume", "true")
