"""What a run says of its encoder: before training, after each epoch, and when it goes on."""

import json
from types import SimpleNamespace

import pytest

from torchrec_mm.pretraining.judge import judge as judging
from torchrec_mm.pretraining.judge.judge import RETRIEVAL_FILE, Results
from torchrec_mm.runs.position import Position

BEFORE, AFTER = {"mrr": 0.1, "spaces": {"text": {}}}, {"mrr": 0.4, "spaces": {"text": {}}}


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Results of a run whose encoder is judged BEFORE, then AFTER; what is written, by name."""
    saved: list[str] = []
    monkeypatch.setattr(judging, "save_encoder", lambda folder, name, *rest: saved.append(name))

    def start(*reports: dict) -> Results:
        left = iter(reports)
        once = iter([{"text": "0123"}])  # all frozen weights are read for it, so once a run
        monkeypatch.setattr(judging, "frozen_fingerprints", lambda encoder: next(once))
        judge = SimpleNamespace(report=lambda encoder: next(left))
        worker, lines = SimpleNamespace(is_first=True), []
        run = SimpleNamespace(path=tmp_path, worker=worker, lines=lines, saved=saved)
        run.log = lambda **values: lines.append(values)
        return Results(run, None, judge, "scl")

    return start


def test_an_epoch_is_chosen_by_its_mrr_and_stands_beside_the_off_the_shelf_encoder(judged):
    run = judged(BEFORE, AFTER)
    run.begin(Position())
    assert run.after_epoch(1) == 0.4
    assert run.run.lines == [{"epoch": 0, "mrr": 0.1}, {"epoch": 1, "mrr": 0.4}]
    written = json.loads((run.run.path / RETRIEVAL_FILE).read_text())
    assert written == {"encoder": "scl"} | AFTER | {"off-the-shelf": BEFORE}
    assert run.run.saved == ["off-the-shelf", "scl"]


def test_a_run_that_goes_on_does_not_judge_its_beginning_again(judged):
    judged(BEFORE).begin(Position())
    run = judged(AFTER)
    run.begin(Position(step=5))
    run.after_epoch(1)
    assert run.report["off-the-shelf"] == BEFORE and run.run.lines == [{"epoch": 1, "mrr": 0.4}]
