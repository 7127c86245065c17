"""Folders of requests read whole, for tests that look at what a command wrote."""

from pathlib import Path

from torchrec_mm.data.parquet import read_table
from torchrec_mm.data.requests import RequestColumns, Requests, parse_requests


def read_requests(folder: Path, max_behaviours: int) -> Requests:
    table = read_table(folder)
    return parse_requests(table, folder, RequestColumns.of(table.schema), max_behaviours)
