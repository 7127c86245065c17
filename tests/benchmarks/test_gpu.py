"""The benchmark of GPUs: what is compared with what, tried where the ranks take a CPU for one."""

import pytest

import apps.benchmark
from tests.benchmarks.conftest import SHORT, SMALL
from torchrec_mm.benchmarks import embedding, gpu, pretraining
from torchrec_mm.benchmarks.gpu import GpuConfig, compare

LITTLE = {
    "runs": 1,
    "seconds": 0.01,
    "batch_impressions": (16,),
    "users": SMALL["users"],
    "items": SMALL["items"],
    "requests": SHORT["requests"],
    "baseline_workers": 0,
    "copied_mib": 1,
    "vectors": 2000,
    "searched_requests": 2,
    "table_rows": 500,
    "looked_up": 100,
}


@pytest.fixture
def with_a_gpu(monkeypatch, forked) -> None:
    """The command believes that there is one; its processes know better."""
    monkeypatch.setattr(gpu, "usable_gpus", lambda: 1)


def test_without_a_gpu_it_is_refused(refused, monkeypatch):
    monkeypatch.setattr(gpu, "usable_gpus", lambda: 0)
    assert "gpu must run on a host with a GPU" in refused(apps.benchmark.main, ["gpu"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("muse", ["gpu/muse", "gpu/muse/held"]),
        ("simtier+make", ["gpu/simtier+make", "gpu/simtier+make/held"]),
        ("bandwidth", ["gpu/search", "gpu/look_up"]),
    ],
)
def test_each_part_compares_what_its_lines_say(part, lines, with_a_gpu):
    found = list(compare(GpuConfig(parts=(part,), **LITTLE)))
    assert [line["benchmark"] for line in found] == lines
    for line in found:
        assert line["ours"] > 0 and line["ratio"] == pytest.approx(line["ours"] / line["baseline"])


def test_phase_ones_benchmarks_are_those_of_their_names(with_a_gpu, monkeypatch):
    for room in (pretraining, embedding):
        monkeypatch.setattr(room, "compare", lambda config, room=room: iter([room, config.runs]))
    found = list(compare(GpuConfig(parts=("embedding", "pretraining"), runs=2)))
    assert found == [pretraining, 2, embedding, 2]


def test_more_rows_than_the_table_has_cannot_be_looked_up(refused):
    line = refused(apps.benchmark.main, ["gpu", "--table_rows", "5", "--looked_up", "6"])
    assert "looked_up must be at most table_rows, 5, got 6" in line
