"""The trace of a few steps."""

import json

import pytest
import torch

from torchrec_mm.runs.profiler import SKIPPED_STEPS, WARMUP_STEPS, StepProfiler


def train(profiler: StepProfiler, steps: int) -> None:
    with profiler:
        for _ in range(steps):
            torch.ones(3) + 1
            profiler.step()


@pytest.mark.parametrize("extra", [0, 5])
def test_as_many_steps_as_asked_for_are_traced(extra, tmp_path):
    train(StepProfiler(tmp_path / "trace.json", 2), SKIPPED_STEPS + WARMUP_STEPS + 2 + extra)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum(name == "aten::add" for name in names) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_nothing_is_traced_unasked(tmp_path):
    train(StepProfiler(tmp_path / "trace.json", 0), 10)
    assert not list(tmp_path.iterdir())


def test_too_few_steps_for_a_trace_are_said(tmp_path, caplog):
    train(StepProfiler(tmp_path / "trace.json", 2), 2)
    assert "no trace was written: profile_steps begins after 4 steps" in caplog.text
