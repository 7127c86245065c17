"""Scoring over HTTP, against the training model scoring the same without any server.

Ours is ``apps.serve`` by its default flags, in a process of its own, with its clients in another on
the same cores. The baseline is the network as plain PyTorch defines it (no kernels), on a row a
candidate, each with its history, which is how such models are scored with the code that trains
them; it is given parsed requests, and pays for no HTTP. Requests are **drawn**: items at random.
"""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from torchrec_mm.benchmarks.harness import alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.online.load import Load, load
from torchrec_mm.benchmarks.ranking.short_data import ShortDataConfig, short_data
from torchrec_mm.benchmarks.ranking.short_ours import MAKE_RUN
from torchrec_mm.commands import module_of
from torchrec_mm.config import check_fields
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.scorer import Scorer
from torchrec_mm.serving.wire import ARROW, JSON, Limits, parse

BEHAVIOURS = {"simtier+make": 50, "muse": 1000}
LIMITS = Limits(bytes=1 << 30, requests=1 << 20, candidates=1 << 20, behaviours=1 << 20)
DRAWN = 32  # requests that clients take in turn


@dataclass(frozen=True, kw_only=True)
class ServingConfig(ShortDataConfig):
    """Requests a second and their latency, of 500 candidates, over HTTP at 1 and 16 clients.

    simtier+make sees 50 behaviours, muse 1000. The baseline is the same network as plain PyTorch
    defines it, a row a candidate, without a server. Data and requests are simulated.
    """

    scored_candidates: int = 500
    """Of each request."""
    clients: int = 16
    """That ask at the same time, besides the measurement with one."""
    seconds: float = 5.0
    """Length of each measurement, after warming up."""
    threads: int = 2
    """Of torch in the baseline; the server has its default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self, lambda x: x >= 1, "at least 1", "scored_candidates", "clients", "threads"
        )
        check_fields(self, lambda x: x > 0, "above 0", "seconds")


def compare(config: ServingConfig) -> Iterator[dict[str, Any]]:
    """Both methods, in JSON and Arrow."""
    with short_data(config) as data:
        for method, behaviours in BEHAVIOURS.items():
            run_dir = trained_run(method, data)
            yield from compare_method(config, method, data, run_dir, behaviours)


def trained_run(method: str, data: Path) -> Path:
    """The run of a method, made if need be."""
    run_dir = data / f"run-{method}"
    if not (run_dir / "metrics.jsonl").exists():
        train(method, data, run_dir, BEHAVIOURS[method])
    return run_dir


def train(method: str, data: Path, run_dir: Path, behaviours: int) -> None:
    """One epoch by the default flags, but for what muse searches."""
    flags = ["--method", method, "--encoded", data / "encoded", "--vectors", data / "vectors"]
    flags += ["--make", data / MAKE_RUN] if "make" in method else []
    flags += ["--searched_behaviours", behaviours] if method == "muse" else []
    call = [sys.executable, "-m", module_of("train_ranker"), *flags, "--run_dir", run_dir]
    subprocess.run([str(word) for word in call], check=True, stderr=subprocess.DEVNULL)


def compare_method(
    config: ServingConfig, method: str, data: Path, run_dir: Path, behaviours: int
) -> Iterator[dict[str, Any]]:
    """Of one run."""
    rows = (config.scored_candidates, behaviours, config.seed)

    def over_http(kind: str, clients: int) -> Callable[[], Load]:
        return lambda: served(config, run_dir, data, kind, clients, rows)

    sides: dict[str, Callable[[], Any]] = {
        f"{kind} {clients}": over_http(kind, clients)
        for kind in (JSON, ARROW)
        for clients in (1, config.clients)
    }
    sides["scorer"] = lambda: in_fresh_process(
        scored, run_dir, data, rows, config.seconds, True, threads=max(1, config.threads - 1)
    )
    sides["baseline"] = lambda: in_fresh_process(
        scored, run_dir, data, rows, config.seconds, False, threads=config.threads
    )
    found = alternate(sides, config.runs)
    scorer_s = 1 / float(np.median(found["scorer"]))
    for kind, name in ((JSON, "json"), (ARROW, "arrow")):
        alone, together = found[f"{kind} 1"], found[f"{kind} {config.clients}"]
        alone_ms = float(np.median([run.p50_ms for run in alone]))
        yield comparison(
            f"serving/{method}/{name}",
            "requests/s",
            [run.requests_per_s for run in together],
            found["baseline"],
            more_is_better=True,
            candidates=config.scored_candidates,
            behaviours=behaviours,
            clients=config.clients,
            p50_ms=float(np.median([run.p50_ms for run in together])),
            p99_ms=float(np.median([run.p99_ms for run in together])),
            alone_p50_ms=alone_ms,
            alone_p99_ms=float(np.median([run.p99_ms for run in alone])),
            http_and_decoding_share=1 - scorer_s * 1e3 / alone_ms,
            threads=config.threads,
        )


def served(
    config: ServingConfig,
    run_dir: Path,
    data: Path,
    kind: str,
    clients: int,
    rows: tuple[int, int, int],
) -> Load:
    """What clients see of a server that was started for them."""
    with server(run_dir, data) as at:
        asking = (at.host, at.port, kind, clients, config.seconds)
        return in_fresh_process(ask, run_dir, data, rows, *asking, threads=1)


def ask(
    run_dir: Path,
    data: Path,
    rows: tuple[int, int, int],
    host: str,
    port: int,
    kind: str,
    clients: int,
    seconds: float,
) -> Load:
    """Draw the requests, and be their clients."""
    bodies = bodies_of(run_dir, data, kind, rows)
    return load(host, port, kind, bodies, clients, seconds)


@dataclass(frozen=True)
class Address:
    """Where a server listens, and its process."""

    host: str
    port: int
    pid: int


@contextmanager
def server(run_dir: Path, data: Path, *more: object) -> Iterator[Address]:
    """``apps.serve``, with ``more`` flags than it needs."""
    flags = ["--run_dir", run_dir, "--items", data / "market" / "items", "--port", 0]
    flags += ["--vectors", data / "vectors", "--timeout_s", 60, *more]
    call = [str(word) for word in (sys.executable, "-m", module_of("serve"), *flags)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            found = re.search(rb"http://([\d.]+):(\d+)", process.stdout.readline())
            if found is None:
                raise RuntimeError("apps.serve did not start")
            yield Address(found[1].decode(), int(found[2]), process.pid)
        finally:
            process.terminate()


def drawn(scorer: Scorer, candidates: int, behaviours: int, seed: int) -> list[pa.Table]:
    """Requests of one user each, of the catalogue's items."""
    rng = np.random.default_rng(seed)
    ids = scorer.encoder.catalogue.index.ids
    users = scorer.encoder.vocabularies.request["user_id"].known_ids
    return [
        pa.table(
            {
                "user_id": rng.choice(users, 1),
                "behaviour_item_ids": [rng.choice(ids, behaviours)],
                "candidate_item_ids": [rng.choice(ids, candidates)],
            }
        )
        for _ in range(DRAWN)
    ]


def bodies_of(run_dir: Path, data: Path, kind: str, rows: tuple[int, int, int]) -> list[bytes]:
    """What clients send."""
    tables = drawn(open_scorer(run_dir, data), *rows)
    if kind == JSON:
        return [json.dumps(table.to_pylist()[0]).encode() for table in tables]
    bodies = []
    for table in tables:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        bodies.append(sink.getvalue())
    return bodies


def scored(
    run_dir: Path, data: Path, rows: tuple[int, int, int], seconds: float, is_ours: bool
) -> float:
    """Requests a second without a server, ours or a row a candidate as plain PyTorch has it."""
    if not is_ours:
        os.environ[SWITCH] = "0"
    scorer = open_scorer(run_dir, data)
    encoder = scorer.encoder
    tables = drawn(scorer, *rows)
    if not is_ours:
        tables = [row_a_candidate(table) for table in tables]
    none = Histories.none(encoder.columns)
    most = encoder.max_behaviours
    asked = [parse(t, encoder.columns, LIMITS, most, none).requests for t in tables]
    scorer.probabilities(asked[0])
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        scorer.probabilities(asked[done % len(asked)])
        done += 1
    return done / (time.perf_counter() - start)


def row_a_candidate(table: pa.Table) -> pa.Table:
    """The same candidates, each in a request of its own."""
    (candidates,) = table["candidate_item_ids"].to_pylist()
    repeated = table.take(pa.array(np.zeros(len(candidates), np.int64)))
    place = table.column_names.index("candidate_item_ids")
    return repeated.set_column(place, "candidate_item_ids", pa.array([[c] for c in candidates]))


def open_scorer(run_dir: Path, data: Path) -> Scorer:
    """Of a run's latest checkpoint."""
    trained = TrainedRun.open(run_dir, "latest")
    vectors = ItemVectors.open(data / "vectors")
    return Scorer.open(trained, data / "market" / "items", lambda: vectors)
