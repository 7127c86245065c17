"""Whether a client reads what ``apps.predict`` writes: no speed, but a difference.

Requests are **drawn**, items and users at random, and asked of ``apps.serve`` over HTTP in bodies
of several, by several clients at a time, so that batches mix them; ``apps.predict`` gets the same
as a folder. Baseline is the tolerance that the server promises.
"""

import http.client
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.benchmarks.harness import comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking.short_data import ShortDataConfig, short_data
from torchrec_mm.benchmarks.serving import Address, open_scorer, server, train
from torchrec_mm.columns.jagged import list_array, values_and_offsets
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.commands import module_of
from torchrec_mm.config import check_fields
from torchrec_mm.serving.wire import ANSWER, ARROW, JSON

TOLERANCE = 1e-6
BEHAVIOURS = {"simtier+make": 50, "muse": 200}
LARGEST_BODY = 32  # requests
CLIENTS = 4
LEAST = 1e-9  # in the place of no difference at all, by which nothing can be divided


@dataclass(frozen=True, kw_only=True)
class ParityConfig(ShortDataConfig):
    """The largest difference between probabilities over HTTP and those of apps.predict.

    Of simtier+make and muse, in JSON and Arrow. Data and requests are simulated.
    """

    runs: int = 1
    """Times that requests are drawn and compared; the median of the largest is reported."""
    compared_requests: int = 10_000
    """Of each method and form."""
    scored_candidates: int = 20
    """Of each request."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "compared_requests", "scored_candidates")


def compare(config: ParityConfig) -> Iterator[dict[str, Any]]:
    """Both methods, in JSON and Arrow."""
    with short_data(config) as data:
        for method, behaviours in BEHAVIOURS.items():
            run_dir = data / f"parity-{method}"
            if not (run_dir / "metrics.jsonl").exists():
                train(method, data, run_dir, behaviours)
            found = [differences(config, data, run_dir, behaviours, n) for n in range(config.runs)]
            for kind, name in ((JSON, "json"), (ARROW, "arrow")):
                yield comparison(
                    f"parity/{method}/{name}",
                    "largest difference of a probability",
                    [max(each[kind], LEAST) for each in found],
                    [TOLERANCE],
                    more_is_better=False,
                    requests=config.compared_requests,
                    candidates=config.scored_candidates,
                    behaviours=behaviours,
                )


def differences(
    config: ParityConfig, data: Path, run_dir: Path, behaviours: int, number: int
) -> dict[str, float]:
    """Of one draw of requests, the largest by content type."""
    shape = (config.compared_requests, config.scored_candidates, behaviours)
    with TemporaryDirectory() as folder:
        asked = Path(folder, "asked")
        in_fresh_process(draw, run_dir, data, asked, shape, (config.seed, number))
        table = pq.read_table(asked / "part.parquet")
        wanted = predicted(run_dir, data, asked, Path(folder, "scores.parquet"))
    with server(run_dir, data) as where:
        return {
            kind: float(np.abs(answered(where, kind, table, config.seed) - wanted).max())
            for kind in (JSON, ARROW)
        }


def draw(
    run_dir: Path, data: Path, folder: Path, shape: tuple[int, int, int], seed: tuple[int, int]
) -> None:
    """Write requests of the ranker's users and its catalogue's items; some users are new."""
    scorer, rng = open_scorer(run_dir, data), np.random.default_rng(seed)
    requests, candidates, behaviours = shape
    ids = scorer.encoder.catalogue.index.ids
    users = scorer.encoder.vocabularies.request["user_id"].known_ids
    lengths = rng.integers(0, behaviours + 1, requests)
    table = pa.table(
        {
            "user_id": np.where(rng.random(requests) < 0.9, rng.choice(users, requests), -7),
            "behaviour_item_ids": list_array(rng.choice(ids, lengths.sum()), lengths),
            "candidate_item_ids": list_array(
                rng.choice(ids, requests * candidates), np.full(requests, candidates)
            ),
        }
    )
    write_table(folder / "part.parquet", table)


def predicted(run_dir: Path, data: Path, requests: Path, output: Path) -> np.ndarray:
    """What ``apps.predict`` says, one after another."""
    flags = ["--run_dir", run_dir, "--requests", requests, "--output", output]
    flags += ["--items", data / "market" / "items", "--vectors", data / "vectors"]
    call = [str(word) for word in (sys.executable, "-m", module_of("predict"), *flags)]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return np.array(values_and_offsets(pq.read_table(output)["click_probabilities"])[0])


def answered(where: Address, kind: str, table: pa.Table, seed: int) -> np.ndarray:
    """What clients are answered, one request after another, in bodies of different size."""
    rng, bodies, start = np.random.default_rng(seed), [], 0
    while start < len(table):
        size = int(rng.integers(1, LARGEST_BODY + 1))
        bodies.append(body_of(table.slice(start, size), kind))
        start += size
    with ThreadPoolExecutor(CLIENTS) as clients:
        found = clients.map(lambda body: ask(where, kind, body), bodies)
        return np.concatenate([*found])


def body_of(table: pa.Table, kind: str) -> bytes:
    """What a client sends."""
    if kind == JSON:
        return json.dumps({"requests": table.to_pylist()}).encode()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def ask(where: Address, kind: str, body: bytes) -> np.ndarray:
    """The probabilities of all candidates; RuntimeError for an answer that has none."""
    connection = http.client.HTTPConnection(where.host, where.port)
    connection.request("POST", "/score", body, {"content-type": kind})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the scorer answered {answer.status} {said[:200]!r}")
    if kind == JSON:
        return np.concatenate(json.loads(said)[ANSWER])
    return np.array(values_and_offsets(pa.ipc.open_stream(said).read_all()[ANSWER])[0])
