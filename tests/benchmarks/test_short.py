"""The short benchmark: what is compared with what."""

import pytest

from tests.benchmarks.conftest import SHORT
from torchrec_mm.benchmarks import short
from torchrec_mm.benchmarks.ranking import short_ours, training
from torchrec_mm.benchmarks.ranking.sides import Quality
from torchrec_mm.benchmarks.short import ShortConfig, compare


@pytest.fixture
def asked(monkeypatch):
    """Sides that take no time: the tasks that they were given, by (side, method, batch)."""
    asked = []
    rates = {
        ("ours", "id", None): 100.0,
        ("ours", "id", 300): 300.0,
        ("ours", "simtier+make", None): 50.0,
        ("ours", "simtier+make", 300): 150.0,
        ("baseline", "id", 40): 10.0,
        ("baseline", "id", 300): 20.0,
    }
    reached = {
        ("ours", "id", None): Quality(0.6, 0.7, 900),
        ("ours", "simtier+make", None): Quality(0.75, 0.8, 900),
        ("baseline", "id", 40): Quality(0.5, 0.4, 900),
        ("baseline", "id", 300): Quality(0.3, 0.9, 900),
    }

    def of(figures, side, task):
        name = "ours" if side.__module__ == short_ours.__name__ else "baseline"
        asked.append((side.__name__, name, task.method, task.batch_impressions))
        return figures[name, task.method, task.batch_impressions]

    monkeypatch.setattr(
        training, "on_fresh_ranks", lambda side, task, world_size, threads: [of(rates, side, task)]
    )
    monkeypatch.setattr(
        short, "in_fresh_process", lambda side, task, threads: of(reached, side, task)
    )
    monkeypatch.setattr(short, "command_speed", lambda command, threads: 25.0)
    return asked


@pytest.fixture
def config(short_folder) -> ShortConfig:
    batches = {"baseline_batch_impressions": 40, "large_batch_impressions": 300}
    return ShortConfig(work_dir=short_folder, runs=2, **batches, **SHORT)


def test_the_lines_compare_what_their_names_say(asked, config):
    lines = {line["benchmark"]: line for line in compare(config)}
    assert {name: line["ratio"] for name, line in lines.items()} == {
        "short/id": 10.0,
        "short/simtier+make": 5.0,
        "short/id/large": 15.0,
        "short/simtier+make/large": 7.5,
        "short/id/auc": 1.2,
        "short/simtier+make/auc": 1.5,
    }
    assert len(asked) == 2 * 6 + 4
    for name, line in lines.items():
        large = name.endswith("/large")
        assert line["batch_impressions"] == pytest.approx(300 if large else 64 * 7.5, rel=0.1)
        assert line["baseline_batch_impressions"] == (300 if large else 40)
        assert line["threads"] == config.threads


def test_aucs_are_told_with_gauc_and_the_best_that_there_is(asked, config):
    *_, line = compare(config)
    assert (line["ours_gauc"], line["baseline_gauc"]) == (0.8, 0.4)
    assert 0 < line["true_auc"] < 1
    assert line["impressions"] == line["baseline_impressions"] == 900


def test_a_command_is_timed_beside_both_methods(asked, config):
    more = {**vars(config), "baseline_command": "theirs", "epochs": 0}
    lines = {line["benchmark"]: line["ratio"] for line in compare(ShortConfig(**more))}
    assert {name: lines[name] for name in lines if name.endswith("/command")} == {
        "short/id/command": 4.0,
        "short/simtier+make/command": 2.0,
    }


def test_auc_and_the_command_can_be_left_out(asked, config):
    lines = [line["benchmark"] for line in compare(ShortConfig(**{**vars(config), "epochs": 0}))]
    assert lines == ["short/id", "short/simtier+make", "short/id/large", "short/simtier+make/large"]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("large_batch_impressions", 0, "at least 1"),
        ("baseline_workers", -1, "at least 0"),
        ("seconds", 0.0, "above 0"),
    ],
)
def test_a_measurement_that_cannot_be_taken_is_refused(field, value, rule):
    with pytest.raises(ValueError, match=f"{field} must be {rule}, got {value}"):
        ShortConfig(**{field: value})
