"""The guards: the first bad step is named with its requests, constant logits are said once."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers import another_rank
from torchrec_mm.data.encoded.encoded import RowGroup
from torchrec_mm.errors import TrainingDiverged
from torchrec_mm.runs.position import Position
from torchrec_mm.train import guards
from torchrec_mm.train.guards import Guard, Step

NAN, INF = float("nan"), float("inf")
FILES = [
    RowGroup(Path("train/a.parquet"), 0, 0, 4),
    RowGroup(Path("train/a.parquet"), 1, 4, 4),
    RowGroup(Path("train/b.parquet"), 0, 8, 92),
]
DATA = SimpleNamespace(groups=FILES, group_starts=np.array([0, 4, 8]))


def step(number: int, loss: float, logits: list[list[float]], rows) -> Step:
    """``logits``: of each request's impressions, which may be none."""
    position = Position(step=number, epoch=1, requests_done=16 * number)
    flat, lengths = torch.tensor(sum(logits, [])), [len(one) for one in logits]
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))
    return Step(position, torch.tensor(loss), flat, offsets, torch.tensor(rows))


def good(number: int, rows=(0, 9)) -> Step:
    return step(number, 0.5, [[0.1, 0.2], [0.3]], rows)


@pytest.fixture
def guard(worker) -> Guard:
    return Guard(DATA, lambda: Path("runs/id/checkpoints/step-00000006"))


def test_good_steps_pass_with_impressions_or_without(guard):
    for number in range(5):
        guard.add(good(number))
    guard.add(step(5, 0.0, [[], []], [0, 9]))
    guard.check()
    assert guard.steps == []


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_the_first_bad_step_is_named_with_its_requests_and_the_checkpoint(loss, guard):
    guard.add(good(6))
    guard.add(step(7, loss, [[0.1], [0.3, NAN], [], [INF, 1.0], [0.2]], [2, 5, 6, 9, 10]))
    guard.add(step(8, NAN, [[NAN, NAN]], [3]))
    with pytest.raises(TrainingDiverged) as raised:
        guard.check()
    assert str(raised.value) == (
        f"loss became {loss} in step 8 (epoch 2, after 112 of its requests), at requests 5, 9 "
        "(a.parquet row group 1, b.parquet row group 0); "
        "last good checkpoint: runs/id/checkpoints/step-00000006"
    )


def test_all_requests_of_the_step_are_to_blame_when_their_logits_are_numbers(guard):
    guard.add(step(0, NAN, [[0.0, 0.0]] * 8, range(20, 28)))
    words = r"at requests 20, 21, 22, 23, 24 and 3 more \(b.parquet row group 0\)"
    with pytest.raises(TrainingDiverged, match=words):
        guard.check()


@pytest.mark.parametrize("broken", range(5))
def test_the_request_is_named_whichever_of_its_impressions_is_broken(broken, guard):
    """Requests of 2, 0, 1 and 2 impressions; the empty one is nobody's fault."""
    logits = [0.1] * 5
    logits[broken] = NAN
    guard.add(step(0, 0.5, [logits[:2], [], logits[2:3], logits[3:]], [20, 21, 22, 23]))
    guard.steps[0] = replace(guard.steps[0], loss=torch.tensor(NAN))
    with pytest.raises(TrainingDiverged, match=f"at requests {(20, 20, 22, 23, 23)[broken]} "):
        guard.check()


def test_no_checkpoint_is_said_to_be_none(worker):
    guard = Guard(DATA, lambda: None)
    guard.add(replace(good(0), loss=torch.tensor(NAN)))
    with pytest.raises(TrainingDiverged, match="last good checkpoint: none$"):
        guard.check()


def test_a_loss_that_is_lost_on_another_rank_ends_this_one_in_the_same_step(guard, monkeypatch):
    monkeypatch.setattr(guard, "_in_words", lambda step, loss: f"{loss} in {step.position.step}")
    another_rank.join(monkeypatch, lambda ours: torch.tensor([0.5, NAN, 3.0]).double())
    for number in (4, 5):
        guard.add(good(number))
    with pytest.raises(TrainingDiverged, match="^nan in 5$"):
        guard.check()


def test_what_is_kept_is_bounded_by_checking(guard, monkeypatch):
    monkeypatch.setattr(guards, "MOST_STEPS", 3)
    guard.add(good(0))
    guard.add(step(1, NAN, [[NAN]], [1]))
    with pytest.raises(TrainingDiverged, match="in step 2 "):
        guard.add(good(2))


def warnings_of(guard: Guard, caplog, *windows: list[float]) -> list[str]:
    for number, logits in enumerate(windows):
        guard.add(step(number, 0.5, [logits], [0]))
        guard.check()
    return [record.getMessage() for record in caplog.records]


def test_constant_logits_are_said_once(guard, caplog, monkeypatch):
    monkeypatch.setattr(guards, "ENOUGH_IMPRESSIONS", 4)
    assert warnings_of(guard, caplog, [0.25] * 3, [0.25] * 2, [0.25] * 6) == [
        "predictions are constant: the last 5 impressions all got the logit 0.25"
    ]


@pytest.mark.parametrize(("theirs", "words"), [(0.25, ["the last 6 impressions"]), (0.5, [])])
def test_logits_are_alike_where_they_are_on_all_ranks(theirs, words, guard, caplog, monkeypatch):
    monkeypatch.setattr(guards, "ENOUGH_IMPRESSIONS", 6)
    sums, extremes = torch.tensor([0.5, 3.0]), torch.tensor([-theirs, theirs])
    held = iter([sums.double(), extremes.double()])
    another_rank.join(monkeypatch, lambda ours: next(held))
    said = warnings_of(guard, caplog, [0.25] * 3)
    assert [part in line for part, line in zip(words, said, strict=True)] == [True] * len(words)


def test_logits_that_differ_or_are_few_are_no_cause_for_a_warning(guard, caplog, monkeypatch):
    monkeypatch.setattr(guards, "ENOUGH_IMPRESSIONS", 4)
    assert not warnings_of(guard, caplog, [0.25] * 3, [0.25, 0.5], [0.5] * 3)
