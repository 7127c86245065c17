"""The command that prints comparisons."""

import json
from collections.abc import Iterator

import pytest

from apps.benchmark import main
from torchrec_mm.benchmarks import memory
from torchrec_mm.errors import InputError

LINE = {
    "benchmark": "memory",
    "unit": "bytes/row",
    "ours": 68.0,
    "baseline": 192.0,
    "ratio": 192 / 68,
    "runs": 1,
    "promised": 74.8,
    "machine": {"cpu": "some"},
}


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch) -> list[memory.MemoryConfig]:
    configs = []

    def compare(config: memory.MemoryConfig) -> Iterator[dict]:
        configs.append(config)
        yield LINE
        yield {**LINE, "benchmark": "memory/rank"}

    monkeypatch.setattr(memory, "compare", compare)
    return configs


def test_each_comparison_is_a_line_of_json(capsys):
    main(["memory", "--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == LINE
    assert second["benchmark"] == "memory/rank"


def test_without_json_it_is_a_sentence(capsys):
    main(["memory"])
    assert capsys.readouterr().out.splitlines()[0] == (
        "memory: ours 68, baseline 192 bytes/row, ratio 2.824 (runs 1, promised 74.8)"
    )


def test_a_benchmark_has_its_own_flags(nothing_is_measured):
    main(["memory", "--rows", "20000", "--embedding_dim", "8", "--runs", "1"])
    assert nothing_is_measured == [memory.MemoryConfig(rows=20_000, embedding_dim=8, runs=1)]


def test_the_help_of_a_benchmark_names_its_command(capsys):
    with pytest.raises(SystemExit):
        main(["memory", "--help"])
    out = capsys.readouterr().out
    assert "python -m apps.benchmark memory" in out
    assert "Rows of the table" in out and "Print one JSON line" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--name must be given"),
        (["speed"], "--name must be one of .*memory.*, got speed"),
        (["memory", "--runs", "0"], "runs must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(InputError, match=message):
        main(words)
