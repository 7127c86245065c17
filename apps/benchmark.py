"""Measure ours against a baseline in one run; one JSON line a comparison.

python -m apps.benchmark memory --json
python -m apps.benchmark memory --help
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_type_hints

from torchrec_mm.config import parse, run


@dataclass(frozen=True)
class BenchmarkName:
    """Measure ours and a baseline alternately, and print medians and their ratio.

    Each benchmark has flags of its own: `benchmark NAME --help`.
    """

    name: Literal[
        "checkpoint",
        "criteo",
        "embedding",
        "fit",
        "gauc",
        "gpu",
        "launch",
        "live",
        "loader",
        "memory",
        "parity",
        "prepare",
        "pretraining",
        "ranker",
        "serving",
        "short",
        "simtier",
        "soak",
    ]
    """What to measure."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = parse(BenchmarkName, words[:1], positional="name").name
    benchmark = import_module(f"torchrec_mm.benchmarks.{name}")
    config_class = get_type_hints(benchmark.compare)["config"]
    config = parse(config_class, words[1:], command=f"{__spec__.name} {name}")
    for line in benchmark.compare(config):
        print(json.dumps(line) if config.json else sentence(line), flush=True)


def sentence(line: dict[str, Any]) -> str:
    """The figures of one comparison in words; the machine is left to --json."""
    known = ("benchmark", "unit", "ours", "baseline", "ratio", "machine")
    more = ", ".join(f"{name} {short(value)}" for name, value in line.items() if name not in known)
    return (
        f"{line['benchmark']}: ours {short(line['ours'])}, baseline {short(line['baseline'])} "
        f"{line['unit']}, ratio {short(line['ratio'])} ({more})"
    )


def short(value: Any) -> str:
    """Four digits of a float, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(run(main))
