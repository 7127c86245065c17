"""A folder that requests keep arriving in, a Parquet file at a time.

Whoever sends puts whole files there, by renaming. Nothing in it is changed: how far it was read is
in the checkpoints of whoever reads.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import Requests, parse_requests
from torchrec_mm.errors import InputError


class RequestSource(Protocol):
    """Where requests arrive, some at a time, by name."""

    def after(self, done: Sequence[str]) -> list[str]:
        """What there is besides ``done``, in order; some of it if there is any.

        ConnectionError: it cannot be reached now.
        """

    def kept(self, done: Sequence[str]) -> tuple[str, ...]:
        """Of ``done``, what ``after`` has to be told."""

    def read(self, name: str) -> Requests:
        """The requests by a name, at least one, with their times; InputError, ConnectionError."""


class RequestSpool:
    """The files of a folder, for a ranker that knows some columns; a ``RequestSource``."""

    def __init__(self, folder: Path, known: RequestColumns, max_behaviours: int) -> None:
        """Nothing is read.

        Args:
            folder: of files in the layout of ``requests/``; must exist.
            known: the columns of the ranker. max_behaviours: the newest that are kept.

        Raises:
            InputError: no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"follow must be a folder of requests, got {folder}: no such folder")
        self.folder, self._known, self._max_behaviours = folder, known, max_behaviours

    def after(self, done: Sequence[str]) -> list[str]:
        """All files that are there but for those that are done, in order."""
        known = {*done}
        return [name for name in self._names() if name not in known]

    def kept(self, done: Sequence[str]) -> tuple[str, ...]:
        """Files that are done and still there: those that were removed will not come again."""
        there = {*self._names()}
        return tuple(name for name in done if name in there)

    def _names(self) -> list[str]:
        with os.scandir(self.folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith((".", "_")))

    def read(self, name: str) -> Requests:
        """The requests of a file, at least one, with their times.

        Raises:
            InputError: no Parquet, not whole, or not in the layout of ``requests/``, in any row.
        """
        file = ParquetFolder(self.folder, beside=lambda entry: entry.name != name)
        file.require(self._known.all)
        columns = RequestColumns.of([file], {}, self._known)
        columns.check(file)
        table = file.read(columns.required, columns.nullable)
        where = self.folder / name
        requests = parse_requests(table, where, columns, self._max_behaviours)
        if requests.timestamps is None:
            raise InputError(f"{where} column timestamp must be there, and not be null")
        return requests
