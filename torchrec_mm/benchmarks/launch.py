"""How long a user waits for the first training step: started by TorchX, and by torchrun.

Both launch ``apps.train_ranker`` with the same flags on a data set of one step.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.commands import component_of, module_of
from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError

REQUESTS = 64
PROMISED = 1 / 1.3


@dataclass(frozen=True, kw_only=True)
class LaunchConfig(BenchmarkConfig):
    """Seconds from the start of the launcher to the end of the first training step.

    Ours is `torchx run -s local_cwd` with this project's component, the baseline torchrun.
    """

    world_size: int = 2
    """Ranks on this machine."""
    timeout_s: float = 300.0
    """Seconds after which a launch counts as failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "world_size")
        check_fields(self, lambda x: x > 0, "above 0", "timeout_s")


def compare(config: LaunchConfig) -> Iterator[dict[str, Any]]:
    """One comparison."""
    with ranker_data(DataConfig(users=REQUESTS, items=1000, behaviours=20)) as data:
        commands = launchers(config.world_size).items()
        sides = {n: partial(first_step_s, words, data, config.timeout_s) for n, words in commands}
        seconds = alternate(sides, config.runs)
    more: dict[str, Any] = {"world_size": config.world_size, "promised": PROMISED}
    yield comparison("launch", "s", **seconds, more_is_better=False, **more)


def launchers(world_size: int) -> dict[str, list[str]]:
    """What comes before the flags of ``apps.train_ranker``."""
    component = component_of("ranking", "train_ranker")
    ranks = ("--standalone", "--nproc-per-node", str(world_size))
    return {
        "ours": ["torchx", "run", "-s", "local_cwd", component, "-j", f"1x{world_size}", "--"],
        "baseline": ["torchrun", *ranks, "-m", module_of("train_ranker"), "--resume", "true"],
    }


def first_step_s(launcher: Sequence[str], data: Path, timeout_s: float) -> float:
    """Launch, wait for the first step, and let it end.

    Args:
        launcher: a command, without the flags. data: as ``ranker_data`` makes it.

    Raises:
        InputError: it failed or took longer than ``timeout_s``.
    """
    with tempfile.TemporaryDirectory(dir=data) as folder:
        run_dir = Path(folder) / "run"
        flags = ["--encoded", str(data / "encoded"), "--run_dir", str(run_dir), "--method", "id"]
        flags += ["--batch_requests", str(REQUESTS), "--log_every_steps", "1"]
        start = time.perf_counter()
        launched = Popen(
            [*launcher, *flags],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "CUDA_VISIBLE_DEVICES": "",  # as for the component
            },
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        try:
            seconds = None
            while launched.poll() is None and time.perf_counter() - start < timeout_s:
                if seconds is None and is_step_done(run_dir / "metrics.jsonl"):
                    seconds = time.perf_counter() - start
                time.sleep(0.005)
        finally:
            launched.terminate()
            status = launched.wait()
        if status or seconds is None:
            raise InputError(f"{launcher[0]} must train a step in {timeout_s:g} s, got {status}")
        return seconds


def is_step_done(log: Path) -> bool:
    """Whether there is a line of a step, whole."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []
    return any("step" in json.loads(line) for line in lines)
