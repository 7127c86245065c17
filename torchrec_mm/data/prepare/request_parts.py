"""Requests that come a few at a time, as Parquet files of bounded size."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 10_000
PART_GROUPS = 100


class RequestParts:
    """Writes ``folder/part-0000.parquet`` and on, in row groups of 10 000, 100 of them a file.

    Use as a context manager; without a row no file is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.parts = 0
        self._held: list[pa.Table] = []
        self._groups = 0
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> "RequestParts":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None and self._held:
            self._write_group(pa.concat_tables(self._held))
        self._close()

    def add(self, requests: pa.Table) -> None:
        """Append rows; whole row groups are written, the rest is held."""
        table = pa.concat_tables([*self._held, requests])
        whole = table.num_rows - table.num_rows % GROUP_ROWS
        for at in range(0, whole, GROUP_ROWS):
            self._write_group(table.slice(at, GROUP_ROWS))
        rest = table.slice(whole)
        self._held = [rest.combine_chunks()] if rest.num_rows else []

    def _write_group(self, group: pa.Table) -> None:
        if self._file is None:
            path = self.folder / f"part-{self.parts:04d}.parquet"
            self._file = pq.ParquetWriter(path, group.schema, compression="zstd")
            self.parts += 1
        self._file.write_table(group)
        self._groups += 1
        if self._groups % PART_GROUPS == 0:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
