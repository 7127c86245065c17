"""What a run says of its encoder: before training, after each epoch, and when it goes on."""

import json
from types import SimpleNamespace

import pytest

from torchrec_mm.pretraining.judge import judge as judging
from torchrec_mm.pretraining.judge.judge import RETRIEVAL_FILE, Results
from torchrec_mm.runs.position import Position

WHOLE, BEFORE, AFTER, WORSE = ({"mrr": mrr, "spaces": {}} for mrr in (0.2, 0.1, 0.4, 0.3))


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Results of a run whose encoder, as it came or not, is judged as told; names of what is saved.

    Heads have no room for all features unless said otherwise.
    """
    saved: list[str] = []
    reported: list[dict] = []
    monkeypatch.setattr(judging, "save_encoder", lambda folder, name, *rest: saved.append(name))

    def start(*reports: dict, keeps_all: bool = False, momentum_encoder=None) -> Results:
        left = iter(reports)
        once = iter([{"text": "0123"}])  # all frozen weights are read for it, so once a run
        monkeypatch.setattr(judging, "frozen_fingerprints", lambda encoder: next(once))
        judge = SimpleNamespace(
            encode=lambda encoder: next(left),
            mrr=lambda encoded: encoded["mrr"],
            report=lambda encoded: reported.append(encoded) or encoded,
        )
        worker, lines = SimpleNamespace(is_first=True), []
        run = SimpleNamespace(path=tmp_path, worker=worker, lines=lines, saved=saved)
        run.reported = reported
        run.log = lambda **values: lines.append(values)
        parts = {"text": SimpleNamespace(head=SimpleNamespace(keeps_all=keeps_all))}
        encoder = SimpleNamespace(encoders=parts, with_all_features=lambda: None)
        return Results(run, encoder, judge, "scl", momentum_encoder)

    return start


def written(run: Results) -> dict:
    return json.loads((run.run.path / RETRIEVAL_FILE).read_text())


def test_the_encoder_of_an_epoch_stands_beside_the_off_the_shelf_one_without_loss(judged):
    run = judged(BEFORE, WHOLE, AFTER)
    run.begin(Position())
    assert written(run) == {"encoder": "off-the-shelf", "epoch": 0, "off-the-shelf": WHOLE} | BEFORE
    assert run.after_epoch(1) == 0.4
    assert run.run.lines == [{"epoch": 0, "mrr": 0.1}, {"epoch": 1, "mrr": 0.4}]
    assert written(run) == {"encoder": "scl", "epoch": 1, "off-the-shelf": WHOLE} | AFTER
    assert run.run.saved == ["off-the-shelf", "scl"]


def test_heads_that_start_without_loss_are_judged_once_before_training(judged):
    run = judged(BEFORE, keeps_all=True)
    run.begin(Position())
    assert run.report["off-the-shelf"] == BEFORE


def test_the_best_epoch_is_what_is_delivered_and_every_epoch_is_logged(judged):
    run = judged(BEFORE, WHOLE, AFTER, WORSE)
    run.begin(Position())
    assert [run.after_epoch(epoch) for epoch in (1, 2)] == [0.4, 0.3]
    assert written(run)["epoch"] == 1 and written(run)["mrr"] == 0.4
    assert run.run.saved == ["off-the-shelf", "scl"] and len(run.run.lines) == 3


def test_the_first_epoch_is_delivered_even_if_it_is_worse_and_a_later_better_one_instead(judged):
    run = judged(AFTER, AFTER, BEFORE, WORSE)
    run.begin(Position())
    assert [run.after_epoch(epoch) and written(run)["epoch"] for epoch in (1, 2)] == [1, 2]


def test_an_epoch_done_again_after_an_interruption_is_delivered_again(judged):
    run = judged(BEFORE, WHOLE, AFTER, AFTER)
    run.begin(Position())
    for _ in range(2):
        run.after_epoch(1)
    assert run.run.saved == ["off-the-shelf", "scl", "scl"]


@pytest.mark.parametrize(("slow", "delivered"), [(AFTER, "momentum"), (BEFORE, "trained")])
def test_the_momentum_encoder_is_delivered_where_it_is_better(judged, monkeypatch, slow, delivered):
    run = judged(BEFORE, WHOLE, WORSE, slow, momentum_encoder="momentum")
    saved = []
    monkeypatch.setattr(judging, "save_encoder", lambda *given: saved.append(given[-1]))
    run.begin(Position())
    assert run.after_epoch(1) == max(WORSE["mrr"], slow["mrr"]) == written(run)["mrr"]
    assert saved[1] == (run.encoder if delivered == "trained" else "momentum")
    # All figures only of what may be delivered.
    assert (slow in run.run.reported[2:]) == (delivered == "momentum")
    assert run.run.lines[1] == {"epoch": 1, "mrr": 0.3, "momentum_mrr": slow["mrr"]}


@pytest.mark.parametrize(("after", "is_said"), [(BEFORE, True), (WHOLE, False), (AFTER, False)])
def test_a_training_that_ends_below_the_encoder_it_started_from_is_warned_of(
    judged, caplog, after, is_said
):
    run = judged(BEFORE, WHOLE, after)
    run.begin(Position())
    run.after_epoch(1)
    run.warn_if_below()
    assert ("below the off-the-shelf encoder: MRR 0.1000, before 0.2000" in caplog.text) == is_said


def test_a_run_that_goes_on_does_not_judge_its_beginning_again(judged):
    judged(BEFORE, WHOLE).begin(Position())
    run = judged(AFTER)
    run.begin(Position(step=5))
    run.after_epoch(1)
    assert run.report["off-the-shelf"] == WHOLE and run.run.lines == [{"epoch": 1, "mrr": 0.4}]
