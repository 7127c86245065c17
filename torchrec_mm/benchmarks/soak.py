"""A scorer under load for as long as you like, with a new checkpoint now and then.

``apps.serve`` by its default flags, in a process of its own. First its capacity is measured, by
clients of which each asks again when it has its answer; then clients come at a share of that rate,
whether or not it keeps up. Ours are the requests that came while a checkpoint was loaded, from when
it was put there until it scored; the baseline are all others of the same minutes.
"""

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.benchmarks.harness import comparison, in_fresh_process
from torchrec_mm.benchmarks.online.arrivals import Arrivals, arrive
from torchrec_mm.benchmarks.online.checkpoints import put_next, write_changed
from torchrec_mm.benchmarks.online.load import load
from torchrec_mm.benchmarks.online.memory import Watched
from torchrec_mm.benchmarks.ranking.short_data import short_data
from torchrec_mm.benchmarks.serving import (
    BEHAVIOURS,
    ServingConfig,
    bodies_of,
    server,
    trained_run,
)
from torchrec_mm.config import check_fields
from torchrec_mm.serving.wire import JSON

METHOD = "simtier+make"


@dataclass(frozen=True, kw_only=True)
class SoakConfig(ServingConfig):
    """Failed requests, latency while checkpoints are loaded and in between, and memory.

    Of simtier+make over HTTP, JSON, 500 candidates and 50 behaviours a request.
    """

    runs: int = 1
    """Repetitions, one after the other, each with a server of its own."""
    minutes: float = 10.0
    """Under load."""
    load: float = 0.8
    """Requests a second, as a share of the capacity that was measured before."""
    reload_every_s: float = 60.0
    """Seconds between two checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x > 0, "above 0", "minutes", "load", "reload_every_s")
        check_fields(self, lambda x: x < self.minutes * 60, "below minutes", "reload_every_s")


@dataclass(frozen=True)
class Soaked:
    """A run.

    capacity: requests a second. first_mb, last_mb: of memory, in its first and last tenth.
    put: name of each checkpoint, and when it was put there.
    """

    capacity: float
    arrivals: Arrivals
    put: dict[str, float]
    first_mb: float
    last_mb: float


def compare(config: SoakConfig) -> Iterator[dict[str, Any]]:
    """During reloads against between them."""
    with short_data(config) as data:
        run_dir = trained_run(METHOD, data)
        soaked = [soak(config, data, run_dir) for _ in range(config.runs)]
    during = [parted(run)[0] for run in soaked]
    between = [parted(run)[1] for run in soaked]
    yield comparison(
        "soak",
        "ms, p99",
        [percentile_ms(took, 99) for took in during],
        [percentile_ms(took, 99) for took in between],
        more_is_better=False,
        failed=sum(int((~run.arrivals.is_scored).sum()) for run in soaked),
        requests=sum(len(run.arrivals.due_s) for run in soaked),
        reloads=sum(len(run.put) for run in soaked),
        reload_s=float(np.median([seconds for run in soaked for seconds in reload_seconds(run)])),
        requests_during=sum(map(len, during)),
        capacity=float(np.median([run.capacity for run in soaked])),
        load=config.load,
        minutes=config.minutes,
        during_p50_ms=float(np.median([percentile_ms(took, 50) for took in during])),
        between_p50_ms=float(np.median([percentile_ms(took, 50) for took in between])),
        first_mb=float(np.median([run.first_mb for run in soaked])),
        last_mb=float(np.median([run.last_mb for run in soaked])),
    )


def soak(config: SoakConfig, data: Path, run_dir: Path) -> Soaked:
    """One server, from its start to its end."""
    seconds = config.minutes * 60
    rows = (config.scored_candidates, BEHAVIOURS[METHOD], config.seed)
    bodies = in_fresh_process(bodies_of, run_dir, data, JSON, rows, threads=1)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        copy, aside = Path(folder) / "run", Path(folder) / "next"
        shutil.copytree(run_dir, copy)
        count = math.ceil(seconds / config.reload_every_s) - 1
        in_fresh_process(write_changed, copy, aside, count, threads=1)
        with server(copy, data, "--reload_s", 1) as at, Watched(at.pid) as memory:
            asked = (at.host, at.port, JSON, bodies)
            full = in_fresh_process(load, *asked, config.clients, config.seconds, threads=1)
            rate, begin = config.load * full.requests_per_s, time.time()
            put = Putting(aside, copy, count, config.reload_every_s)
            with put:
                arrivals = in_fresh_process(arrive, *asked, rate, seconds, config.seed, threads=1)
            end = time.time()
        tenth = (end - begin) / 10
        means = memory.mean_mb(begin, begin + tenth), memory.mean_mb(end - tenth, end)
    return Soaked(full.requests_per_s, arrivals, put.names, *means)


class Putting:
    """A thread that puts checkpoints where a server looks for them; in a ``with`` block.

    names: when each was put there.
    """

    def __init__(self, aside: Path, run_dir: Path, count: int, every_s: float) -> None:
        self._from, self._to, self._count, self._every_s = aside, run_dir, count, every_s
        self.names: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Putting":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        for _ in range(self._count):
            if self._end.wait(self._every_s):
                return
            name = put_next(self._from, self._to)
            self.names[name] = time.time()


def reload_seconds(run: Soaked) -> list[float]:
    """From when a checkpoint was put there to the first answer by it.

    Raises:
        RuntimeError: one never scored.
    """
    seen = run.arrivals.checkpoints
    if missing := sorted(run.put.keys() - seen.keys()):
        raise RuntimeError(f"apps.serve did not take {missing[0]}")
    return [seen[name] - put for name, put in run.put.items()]


def parted(run: Soaked) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the requests that came while a checkpoint was loaded, and of the others."""
    due, during = run.arrivals.due_s, np.zeros(len(run.arrivals.due_s), bool)
    for put, seconds in zip(run.put.values(), reload_seconds(run), strict=True):
        during |= (put <= due) & (due <= put + seconds)
    return run.arrivals.took_s[during], run.arrivals.took_s[~during]


def percentile_ms(seconds: np.ndarray, percent: float) -> float:
    """NaN of none."""
    return float(np.percentile(seconds, percent)) * 1e3 if len(seconds) else float("nan")
