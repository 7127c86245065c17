"""Requests of a market as a scorer is asked."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import apps.predict
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.scorer import Scorer
from torchrec_mm.serving.wire import Limits, parse

MOST = Limits(bytes=1 << 20, requests=1000, candidates=1000, behaviours=1000)


def scorer_of(run_dir: Path) -> Scorer:
    """Of a run's latest checkpoint."""
    trained = TrainedRun.open(run_dir, "latest")
    vectors = open_vectors(trained, None, "mapped")
    return Scorer.open(trained, trained.items, (lambda: vectors) if vectors else None)


def table_of(scorer: Scorer, requests: Path) -> pa.Table:
    """The columns of a folder that its ranker reads."""
    columns = scorer.encoder.columns
    table = pq.read_table(requests)
    return table.select([n for n in table.column_names if n in columns.required | columns.nullable])


def parsed(scorer: Scorer, table: pa.Table) -> Requests:
    columns, most = scorer.encoder.columns, scorer.encoder.max_behaviours
    return parse(table, columns, MOST, most, Histories.none(columns)).requests


def predicted(run_dir: Path, requests: Path, output: Path) -> np.ndarray:
    """What ``apps.predict`` says of all candidates."""
    flags = ["--run_dir", run_dir, "--requests", requests, "--output", output]
    apps.predict.main([str(flag) for flag in flags])
    return np.concatenate(pq.read_table(output)["click_probabilities"].to_pylist())
