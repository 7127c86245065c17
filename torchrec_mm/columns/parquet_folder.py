"""A folder of Parquet files as one table, each file held to the promise by itself."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.chunks import read_groups
from torchrec_mm.columns.files import data_files, nothing
from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.columns.reading import Footer, input_errors, read_footer
from torchrec_mm.errors import InputError

Types = Mapping[str, pa.DataType]


class ParquetFolder:
    """Files with the same columns, in any order; types may differ, and are checked file by file.

    footers: of the files, in name order. names: of the columns. num_rows: of all files.
    """

    def __init__(self, folder: Path, beside: Callable[[os.DirEntry], bool] = nothing) -> None:
        """Read every footer, once.

        Args:
            folder, beside: see ``data_files``.

        Raises:
            InputError: what ``data_files`` refuses, an unreadable file, a column name twice, files
                of other columns, not a single row.
        """
        self.folder = folder
        self.footers = [read_footer(file) for file in data_files(folder, beside=beside)]
        first = self.footers[0]
        self.names: list[str] = first.schema.names
        for footer in self.footers:
            if set(footer.schema.names) != set(self.names):
                raise InputError(
                    f"{footer.file} must have the columns of {first.file.name} "
                    f"({', '.join(self.names)}), got {', '.join(footer.schema.names)}"
                )
        self.num_rows = sum(footer.num_rows for footer in self.footers)
        if self.num_rows == 0:
            raise InputError(f"{folder} must hold at least one row, got 0")

    @property
    def files(self) -> list[Path]:
        return [footer.file for footer in self.footers]

    def require(self, names: Iterable[str]) -> None:
        """Refuse a folder that lacks one of the named columns: InputError."""
        for name in names:
            if name not in self.names:
                rule = f"{self.folder} must have a column {name}"
                raise InputError(f"{rule}, got {', '.join(self.names)}")

    def check(self, required: Types, nullable: Types | None = None) -> None:
        """Look at the types in every footer, before the long work; see ``check_columns``."""
        self.require(required)
        check_types(self.footers, required, nullable)

    def chunks(
        self, required: Types, nullable: Types | None = None
    ) -> Iterator[tuple[pa.Table, str]]:
        """The named columns, file by file, in tables that fit in memory.

        Yields:
            A table with at least one row, checked, and the words that name it in complaints.

        Raises:
            InputError: an unreadable row group, and what ``check_columns`` refuses.
        """
        for group in self.groups(required, nullable):
            yield from group

    def groups(
        self, required: Types, nullable: Types | None = None
    ) -> Iterator[Iterator[tuple[pa.Table, str]]]:
        """``chunks`` by row group; they may be read at the same time."""

        def checked(chunks: Iterator[tuple[pa.Table, str]]) -> Iterator[tuple[pa.Table, str]]:
            for table, where in chunks:
                yield check_columns(table, where, required, nullable), where

        return map(checked, read_groups(self.files, self._present(required, nullable)))

    def read(self, required: Types, nullable: Types | None = None) -> pa.Table:
        """The named columns of all files, in memory; InputErrors as ``check`` and ``chunks``."""
        self.check(required, nullable)
        names = self._present(required, nullable)
        return concat_files(self._read(file, names, required, nullable) for file in self.files)

    def _present(self, required: Types, nullable: Types | None) -> list[str]:
        return [*required, *(name for name in nullable or {} if name in self.names)]

    def _read(
        self, file: Path, names: list[str], required: Types, nullable: Types | None
    ) -> pa.Table:
        with (
            input_errors(file),
            pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True) as parquet,
        ):
            table = parquet.read(names)
        return check_columns(table, file, required, nullable).select(names)


def check_types(footers: Iterable[Footer], required: Types, nullable: Types | None = None) -> None:
    """Names and types of the columns of every file, see ``check_columns``; values are not read."""
    for footer in footers:
        # Unlike schema.empty_table(), pa.nulls does not load pandas.
        columns = [pa.nulls(0, kind) for kind in footer.schema.types]
        empty = pa.Table.from_arrays(columns, schema=footer.schema)
        check_columns(empty, footer.file, required, nullable)


def concat_files(tables: Iterable[pa.Table]) -> pa.Table:
    """Tables of the same columns and types in one, whatever else their schemas say."""
    plain = [pa.Table.from_arrays(table.columns, table.column_names) for table in tables]
    return pa.concat_tables(plain)
