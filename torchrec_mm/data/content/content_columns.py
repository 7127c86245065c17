"""Columns of pictures and texts in a Parquet folder, read a bounded piece at a time."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from torchrec_mm.columns.parquet import BINARY, STRING
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.errors import InputError

MODALITIES = ("image", "text")

BytesT = TypeVar("BytesT", bytes, bytes | None)


class ContentFolder:
    """``items/`` or ``searches/``: rows that may have a picture, a text, or both.

    folder: of Parquet files. id_column: the first of the required ones, what errors name a row by.
    columns: the content column by wanted modality, e.g. {"text": "title"}; the folder may lack it.
    """

    def __init__(
        self,
        opened: ParquetFolder,
        required: Mapping[str, pa.DataType],
        columns: Mapping[str, str],
        nullable: Mapping[str, pa.DataType] | None = None,
    ) -> None:
        """Look at names and types only.

        ``nullable``: further columns that must be there, nulls among their values or not.

        Raises:
            InputError: a missing column or one of another type.
        """
        self.folder, self.required, self.columns = opened.folder, required, columns
        self.id_column = next(iter(required))
        self._opened = opened
        self._nullable = dict(nullable or {})
        opened.require(self._nullable)
        if "text" in columns:
            self._nullable[columns["text"]] = STRING
        if "image" in columns:
            column = columns["image"]
            self._nullable |= {column: BINARY, f"{column}_path": STRING}
        opened.check(required, self._nullable)

    def chunks(self) -> Iterator[tuple[pa.Table, str]]:
        """The rows in order of file names, types checked, and what to call them in complaints.

        Raises:
            InputError: an unreadable row group, a wrong type, a null that must not be.
        """
        label = f"pack {self.folder.name}"
        with tqdm(total=self._opened.num_rows, desc=label, unit="row", disable=None) as bar:
            for table, where in self._opened.chunks(self.required, self._nullable):
                yield table, where
                bar.update(table.num_rows)

    def contents(self, table: pa.Table) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """The contents of a chunk by modality as ``picture_bytes`` has them, texts in UTF-8."""
        return {
            modality: picture_bytes(table, column, self.folder)
            if modality == "image"
            else (text_strings(table, column).cast(BINARY), np.zeros(table.num_rows, dtype=bool))
            for modality, column in self.columns.items()
        }

    def check_contents(
        self, ids: np.ndarray, present: Mapping[str, np.ndarray], every: bool
    ) -> None:
        """With both modalities wanted each row must have at least one.

        Args:
            ids: (n,) int64, of all rows.
            present: (n,) bool by modality, True where the row has it.
            every: whether each modality must occur in some row; it must where only one is wanted.
        """
        for modality, has in present.items():
            if not has.any() and (every or len(present) == 1):
                raise InputError(
                    f"{self.folder} column {self.columns[modality]} must hold a value for "
                    f"--modality {modality}, got none in {len(ids)} rows"
                )
        empty = ~np.logical_or.reduce(list(present.values()))
        if len(present) == len(MODALITIES) and empty.any():
            raise InputError(
                f"{self.folder} columns {' and '.join(self.columns.values())} must not both be "
                f"null, got {self.id_column} {ids[empty][0]} ({empty.sum()} such rows)"
            )


def text_strings(table: pa.Table, column: str) -> pa.Array:
    """A string column, (n,), blank as missing; all missing without the column."""
    texts = pa.nulls(table.num_rows, STRING)
    if column in table.column_names:
        texts = table[column].combine_chunks()
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    return pc.if_else(blank, pa.scalar(None, STRING), texts)


def picture_bytes(table: pa.Table, column: str, folder: Path) -> tuple[pa.Array, np.ndarray]:
    """The columns ``column`` and, where that is null, ``column``_path relative to ``folder``.

    Returns:
        (n,) binary, an encoded picture or an absolute path, null where missing; and (n,) bool,
        True where it is a path.
    """
    missing = pa.nulls(table.num_rows, BINARY)
    encoded, paths = (
        table[name].combine_chunks() if name in table.column_names else missing
        for name in (column, f"{column}_path")
    )
    is_path = (pc.is_null(encoded).to_numpy(False)) & (pc.is_valid(paths).to_numpy(False))
    if not is_path.any():
        return encoded, is_path
    base = folder.absolute()
    absolute = [None if path is None else bytes(base / path) for path in paths.to_pylist()]
    return pc.coalesce(encoded, pa.array(absolute, BINARY)), is_path


def as_sources(values: Iterable[BytesT], is_path: np.ndarray) -> list[BytesT | Path]:
    """What ``picture_bytes`` returns as ``decode_images`` takes it: paths as such."""
    return [
        Path(os.fsdecode(value)) if path and value is not None else value
        for value, path in zip(values, is_path.tolist(), strict=True)
    ]
