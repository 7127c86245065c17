"""Folders of requests read whole, for tests that look at what a command wrote."""

from pathlib import Path

from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import Requests, parse_requests


def read_requests(folder: Path, max_behaviours: int) -> Requests:
    opened = ParquetFolder(folder)
    columns = RequestColumns.of([opened], {})
    table = opened.read(columns.required, columns.nullable)
    return parse_requests(table, folder, columns, max_behaviours)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder that a command wrote, whatever lies beside them."""
    return sorted(folder.glob("*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files at any depth."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
