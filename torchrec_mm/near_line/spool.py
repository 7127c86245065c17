"""Item events in a folder: Parquet files, and JSON lines, in the order of their names.

Whoever sends puts whole files there, by renaming. ``.done/READER`` lists the files that are done
with, so that another reader, such as another encoder's, goes through all of them. What cannot be
read lies in ``.dead/READER.jsonl``, with the reason.
"""

import json
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.errors import InputError
from torchrec_mm.files import flush
from torchrec_mm.near_line.events import fields_of_json
from torchrec_mm.near_line.source import Message

ROWS = 256  # of a Parquet file, in memory at a time
LOOK_S = 0.2  # between two looks at an empty folder


class Spool:
    """A ``Source``: a folder. One process at a time for each reader."""

    def __init__(self, folder: Path, reader: str) -> None:
        """Find out what was done before.

        Args:
            folder: of files; must exist.
            reader: a name that may stand in a file's.

        Raises:
            InputError: no such folder.
        """
        if not folder.is_dir():
            raise InputError(
                f"events must be a folder of item events, got {folder}: no such folder"
            )
        self._folder = folder
        self._done_file = folder / ".done" / reader
        self._dead_file = folder / ".dead" / f"{reader}.jsonl"
        for file in (self._done_file, self._dead_file):
            file.parent.mkdir(exist_ok=True)
        known = self._done_file.read_text(encoding="utf-8") if self._done_file.exists() else ""
        self._begun = set(known.splitlines())  # a torn last line names no file: it is read again
        self._reading: Iterator[Message] = iter(())
        self._at = ""  # file that is read
        self._open: dict[str, int] = {}  # messages not done with, of files begun

    def poll(self, most: int, wait_s: float) -> list[Message]:
        until = time.monotonic() + wait_s
        while True:
            if messages := list(islice(self._reading, most)):
                self._open[self._at] += len(messages)
                return messages
            self._finish(self._at)
            if files := self._new_files():
                self._at = files[0].name
                self._begun.add(self._at)
                self._open[self._at] = 1  # the reading itself
                self._reading = _messages(files[0])
            elif (left := until - time.monotonic()) > 0:
                time.sleep(min(left, LOOK_S))
            else:
                return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._less(message.key[0])

    def bury(self, message: Message, reason: str) -> None:
        name, row = message.key
        record = {"file": name, "row": row, "reason": reason, "fields": message.fields}
        _append(self._dead_file, json.dumps(record, default=_as_text))
        self._less(name)

    def waiting(self) -> int:
        return len(self._open) + len(self._new_files())

    def close(self) -> None:
        """Nothing is open between two polls but a file that is read."""

    def _new_files(self) -> list[Path]:
        files = (*self._folder.glob("[!.]*.jsonl"), *self._folder.glob("[!.]*.parquet"))
        return sorted(file for file in files if file.name not in self._begun)

    def _finish(self, name: str) -> None:
        """A file has been read to its end."""
        if name in self._open:
            self._at = ""
            self._less(name)

    def _less(self, name: str) -> None:
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
            _append(self._done_file, name)


def _messages(file: Path) -> Iterator[Message]:
    sent_s = file.stat().st_mtime
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_lines(file)
    row = -1
    try:
        for row, (fields, broken) in enumerate(rows):
            yield Message((file.name, row), fields, sent_s, broken)
    except (OSError, pa.ArrowException) as error:  # the rest of it, or all
        broken = f"file must be readable: {' '.join(str(error).split())}"
        yield Message((file.name, row + 1), {}, sent_s, broken)


def _parquet_rows(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS):
            for fields in batch.to_pylist():
                yield fields, ""


def _json_lines(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield fields_of_json(line)


def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(f"{line}\n")
    flush(file)


def _as_text(value: object) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else repr(value)
