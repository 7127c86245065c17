"""Parquet files a bounded piece at a time."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.reading import input_errors, read_metadata

CHUNK_VALUES = 2_000_000
CHUNK_BYTES = 32 << 20  # where values are large: pictures
BUFFER_BYTES = 1 << 20


def read_chunks(
    file: Path,
    columns: list[str] | None = None,
    groups: Sequence[int] | None = None,
    metadata: pq.FileMetaData | None = None,
) -> Iterator[tuple[pa.Table, str]]:
    """The file's rows in order, or those of some row groups, in tables that fit in memory.

    They hold about ``CHUNK_VALUES`` values, list elements counted, or ``CHUNK_BYTES``.

    Column chunks are read through a buffer, so a row group may be larger than memory.
    ``metadata``: the file's, where it has been read.

    Yields:
        A table with at least one row, and the words that name it in complaints.

    Raises:
        InputError: an unreadable file or row group, by name.
    """
    with input_errors(file, "must be a readable Parquet file"):
        parquet = pq.ParquetFile(
            file,
            metadata=metadata,
            buffer_size=BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    with parquet:
        for group in range(parquet.num_row_groups) if groups is None else groups:
            where = f"{file} row group {group}"
            done = 0
            with input_errors(where):
                for batch in parquet.iter_batches(_rows(parquet, group, columns), [group], columns):
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch]), f"{where} from row {done}"
                        done += batch.num_rows


def read_groups(
    files: Iterable[Path], columns: list[str]
) -> Iterator[Iterator[tuple[pa.Table, str]]]:
    """``read_chunks`` of each row group of each file, which may be read at the same time."""
    for file in files:
        metadata = read_metadata(file)
        for group in range(metadata.num_row_groups):
            yield read_chunks(file, columns, [group], metadata)


def count_rows(file: Path) -> int:
    """Rows that the file's footer promises; InputError for an unreadable file."""
    return read_metadata(file).num_rows


def _rows(parquet: pq.ParquetFile, group: int, columns: list[str] | None) -> int:
    """How many rows of the row group make a chunk."""
    metadata = parquet.metadata.row_group(group)
    every = [metadata.column(i) for i in range(metadata.num_columns)]
    read = [c for c in every if columns is None or _is_of(c.path_in_schema, columns)]
    values = sum(column.num_values for column in read)
    size = sum(column.total_uncompressed_size for column in read)
    share = min(CHUNK_VALUES / max(values, 1), CHUNK_BYTES / max(size, 1))
    return max(1, int(metadata.num_rows * min(1, share)))


def _is_of(path: str, columns: list[str]) -> bool:
    """Whether a leaf is of one of the columns, whose names may hold dots themselves."""
    parts = path.split(".")
    return any(".".join(parts[:end]) in columns for end in range(1, len(parts) + 1))
