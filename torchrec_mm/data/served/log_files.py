"""A scorer's log: which of its files are old enough, and not labelled yet."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.parquet import STRING
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.contract.request_columns import LISTS, REQUEST_ID
from torchrec_mm.data.contract.served import OF_SERVER, SERVED_AT
from torchrec_mm.errors import InputError

LABELLED = b"labelled files of the log"  # in the metadata of a file of requests: their names


@dataclass(frozen=True)
class ServedLog:
    """The files of a log by what is to be done with them.

    folder: of the log. schema: of its rows. ripe: to be labelled now. young: with a request that
    is younger than the wait. done: labelled before. young_rows: requests of the young ones.
    """

    folder: Path
    schema: pa.Schema
    ripe: tuple[Path, ...]
    young: tuple[Path, ...]
    done: tuple[Path, ...]
    young_rows: int

    @classmethod
    def open(cls, folder: Path, before: float, done: Collection[str] = ()) -> "ServedLog":
        """Read the footers.

        Args:
            folder: that ``apps.serve --log`` writes to, also meanwhile.
            before: Unix seconds; a file is ripe if all its requests were served earlier.
            done: names of files that were labelled before.

        Raises:
            InputError: no files, unreadable ones, or not such a log.
        """
        files = ParquetFolder(folder)
        named = {name: kind for name, kind in LISTS.items() if name != "labels"}
        files.check({REQUEST_ID: STRING, **named, **OF_SERVER})
        ripe, young, old, young_rows = [], [], [], 0
        for footer in files.footers:
            if footer.file.name in done:
                old.append(footer.file)
            elif _newest(footer.file) < before:
                ripe.append(footer.file)
            else:
                young.append(footer.file)
                young_rows += footer.num_rows
        schema = files.footers[0].schema.remove_metadata()
        return cls(folder, schema, tuple(ripe), tuple(young), tuple(old), young_rows)

    @property
    def columns(self) -> list[str]:
        """Those that training reads, and the request's id."""
        return [name for name in self.schema.names if name not in OF_SERVER]

    def notes(self, wait_s: int) -> Iterator[str]:
        """A line on what is left for another run."""
        if self.young:
            names = [file.name for file in self.young]
            between = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            yield (
                f"{self.young_rows} requests in {len(names)} files of the log, {between}, are left "
                f"for another run: some of them are younger than wait_s = {wait_s} seconds"
            )


def labelled_files(folder: Path) -> set[str]:
    """Names of the files of a log that the files of ``folder``, of labelled requests, are of.

    Raises:
        InputError: other files.
    """
    if not folder.is_dir() or not any(folder.glob("[!._]*")):
        return set()
    found: set[str] = set()
    for footer in ParquetFolder(folder).footers:
        if LABELLED not in footer.notes:
            rule = f"run_dir with add must hold requests of a log alone, got {footer.file}"
            raise InputError(f"{rule}, which apps.prepare --source request_log has not written")
        found |= {*json.loads(footer.notes[LABELLED])}
    return found


def labelled(schema: pa.Schema, log: ServedLog) -> pa.Schema:
    """A schema that says which files of a log were labelled."""
    names = json.dumps([file.name for file in log.ripe])
    return schema.with_metadata({LABELLED: names.encode()})


def _newest(file: Path) -> int:
    """When the last request of a file was served."""
    with input_errors(file), pq.ParquetFile(file) as parquet:
        return max(parquet.read([SERVED_AT]).column(0).to_pylist(), default=0)
