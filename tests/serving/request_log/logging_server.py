"""A server that keeps a log, and what is in it."""

from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi.testclient import TestClient

from tests.serving.test_app import SETTINGS
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.app import make_app
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.request_log.rows import LogRows
from torchrec_mm.serving.request_log.writer import LogSettings, RequestLog

LONG_S = 3600.0
KEPT_BEHAVIOURS = 3


def log_of(scorer, folder: Path, measures: Measures | None = None, **settings) -> RequestLog:
    settings = {"folder": folder, "seconds": LONG_S, "share": 1.0} | settings
    rows = LogRows(scorer.encoder.columns, KEPT_BEHAVIOURS)
    return RequestLog(LogSettings(**settings), rows, measures or Measures())


@contextmanager
def served(run_dir: Path, scorer, folder: Path, histories: Histories | None = None, **settings):
    """A client of a server that keeps a log."""
    measures = Measures()
    current = Current(TrainedRun.open(run_dir, "latest"), lambda run: scorer, measures)
    known = histories or Histories.none(scorer.encoder.columns)
    log = log_of(scorer, folder, measures, **settings)
    with TestClient(make_app(current, SETTINGS, measures, known, log)) as client:
        yield client


def post(client: TestClient, table: pa.Table, **more: list) -> dict:
    """The answer to JSON."""
    rows = [{n: v for n, v in row.items() if v is not None} for row in table.to_pylist()]
    for name, values in more.items():
        rows = [row | {name: value} for row, value in zip(rows, values, strict=True)]
    said = client.post("/score", json={"requests": rows})
    assert said.status_code == 200, said.text
    return said.json()


def logged(folder: Path) -> list[dict]:
    return pq.read_table(folder).sort_by("request_id").to_pylist()
