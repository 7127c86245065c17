"""Writes what was answered, in a thread that no answer waits for."""

import logging
import secrets
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.parquet import write_table
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.errors import InputError
from torchrec_mm.files import remove_unfinished
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.request_log.rows import Answered, LogRows
from torchrec_mm.targets import check_working_folder

logger = logging.getLogger(__name__)
FILE_BYTES = 64 << 20  # in memory, from which a file does not wait for its time
WAITING_BYTES = 256 << 20
RETRY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """folder: of the log. seconds: that a request waits for its file at most. share: of them."""

    folder: Path
    seconds: float
    share: float


class RequestLog:
    """A folder of Parquet files, each whole; in a ``with`` block a thread writes them.

    What waits is bounded; what is more is not kept, and counted. Several processes may write to one
    folder.
    """

    def __init__(self, settings: LogSettings, rows: LogRows, measures: Measures) -> None:
        """Look at the folder; see ``LogSettings``.

        Raises:
            InputError: it cannot be written to, or holds files of other columns.
        """
        check_working_folder(settings.folder, "log")
        settings.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(settings.folder)
        _check_columns(settings.folder, rows.schema)
        self._settings, self._rows, self._measures = settings, rows, measures
        self._waiting: deque[Answered] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)

    def __enter__(self) -> "RequestLog":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Write what waits."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()
        self._thread.join()
        if self._waiting:
            count = sum(len(each.request_ids) for each in self._waiting)
            logger.error("%d requests are not in the log", count)

    def add(self, answered: Answered) -> None:
        """Keep requests, or of each some chance; returns at once."""
        kept = [place for place, name in enumerate(answered.request_ids) if self._is_chosen(name)]
        if not kept:
            return
        chosen = answered if len(kept) == len(answered.request_ids) else answered.take(kept)
        size = chosen.nbytes
        with self._changed:
            has_room = self._bytes + size <= WAITING_BYTES
            if has_room:
                self._waiting.append(chosen)
                self._bytes += size
                self._changed.notify()
        if not has_room:
            self._measures.logged.labels("dropped").inc(len(kept))
        self._measures.log_bytes.set(self._bytes)

    def _is_chosen(self, request_id: str) -> bool:
        """By its name: a request that is asked again has the same lot."""
        return zlib.crc32(request_id.encode()) < self._settings.share * 2**32

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_ended)
                self._changed.wait_for(self._is_due, self._settings.seconds)
                is_last = self._is_ended
            is_written = self._write()
            if is_last:
                return
            if not is_written:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_ended, RETRY_S)

    def _is_due(self) -> bool:
        return self._is_ended or self._bytes >= FILE_BYTES

    def _write(self) -> bool:
        """A file of all that waits; False if that fails, and then it waits on."""
        with self._changed:
            taken = [*self._waiting]
        if not taken:
            return True
        name = f"{time.time_ns() // 1000:016}-{secrets.token_hex(4)}.parquet"
        try:
            table = pa.concat_tables([self._rows(each) for each in taken])
            write_table(self._settings.folder / name, table)
        except (OSError, InputError, pa.ArrowException) as error:
            self._measures.log_failures.inc()
            logger.error("%d answers wait for the log: %s", len(taken), error)
            return False
        with self._changed:
            for _ in taken:
                self._bytes -= self._waiting.popleft().nbytes
        self._measures.logged.labels("written").inc(table.num_rows)
        self._measures.log_bytes.set(self._bytes)
        return True


def _check_columns(folder: Path, schema: pa.Schema) -> None:
    """One folder for one ranker's columns: it is to be read as one."""
    if not any(folder.glob("[!._]*")):
        return
    if {*ParquetFolder(folder).names} != {*schema.names}:
        rule = f"log must be a folder of requests with the columns {', '.join(schema.names)}"
        raise InputError(f"{rule}, got {folder} with {', '.join(ParquetFolder(folder).names)}")
