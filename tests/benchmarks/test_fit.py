"""The benchmark of the fit loop: both sides make the same steps, timed alike."""

import pytest

from torchrec_mm.benchmarks import fit
from torchrec_mm.benchmarks.fit import FitConfig, Timed, compare


def test_both_sides_train_the_same_steps(monkeypatch, tmp_path):
    steps = []
    steps_per_s = Timed.steps_per_s

    def counted(self):
        steps.append(len(self.starts))
        return steps_per_s(self)

    monkeypatch.setattr(Timed, "steps_per_s", counted)
    monkeypatch.setattr(fit, "on_fresh_ranks", lambda work, task, world_size, threads: [work(task)])
    sizes = {"users": 40, "items": 300, "behaviours": 20, "batch_impressions": 44}
    (line,) = compare(FitConfig(work_dir=tmp_path / "data", runs=1, **sizes))
    assert steps == [10, 10]
    assert line["benchmark"] == "fit" and line["ratio"] == line["ours"] / line["baseline"]
    assert line["promised"] == 0.95


def test_steps_are_timed_from_start_to_start_after_the_warm_up():
    timed = Timed(*[None] * 8, starts=[0, 90, 95, 100, 101, 102, 104])
    assert timed.steps_per_s() == pytest.approx(3 / 4)
