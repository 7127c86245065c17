"""Requests that are **drawn**, items at random, and the scorer of a run that they are for."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.cpu.lone import LoneTables
from torchrec_mm.parallel.cpu.quantised import QuantisedTables
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.scorer import NetworkScorer, Scorer, Tables
from torchrec_mm.serving.wire import JSON, Limits, parse

LIMITS = Limits(bytes=1 << 30, requests=1 << 20, candidates=1 << 20, behaviours=1 << 20)
TABLES: tuple[Tables, Tables] = ("fp32", "int8")
HELD = (LoneTables, QuantisedTables)
DRAWN = 32  # requests that clients take in turn


def open_scorer(run_dir: Path, data: Path, tables: Tables = "fp32") -> Scorer:
    """Of a run's latest checkpoint."""
    trained = TrainedRun.open(run_dir, "latest")
    vectors = ItemVectors.open(data / "vectors")
    return Scorer.open(trained, data / "market" / "items", lambda: vectors, tables=tables)


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


def tables_mb(run_dir: Path, data: Path, tables: Tables) -> float:
    """Megabytes of a scorer's embedding tables."""
    model = open_scorer(run_dir, data, tables).model
    assert isinstance(model, NetworkScorer)
    held = [part.weights for part in model.ranker.children() if isinstance(part, HELD)]
    return sum(tensor.nbytes for own in held for tensor in own.values()) / 1e6


def difference(run_dir: Path, data: Path, rows: tuple[int, int, int]) -> float:
    """The largest of the drawn requests' probabilities, by tables in int8 and in fp32."""
    exact, near = (open_scorer(run_dir, data, tables) for tables in TABLES)
    asked = asked_of(exact, drawn(exact, *rows))
    differences = [exact.probabilities(one) - near.probabilities(one) for one in asked]
    return float(np.abs(np.concatenate(differences)).max())


def asked_of(scorer: Scorer, tables: Sequence[pa.Table]) -> list[Requests]:
    """As the server reads them."""
    columns, most = scorer.encoder.columns, scorer.encoder.max_behaviours
    none = Histories.none(columns)
    return [parse(table, columns, LIMITS, most, none).requests for table in tables]
