"""Columns of pictures and texts in a Parquet folder, read a bounded piece at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from torchrec_mm.data.chunks import read_chunks
from torchrec_mm.data.parquet import (
    BINARY,
    STRING,
    check_columns,
    open_dataset,
    parquet_files,
    require_columns,
)
from torchrec_mm.errors import InputError

MODALITIES = ("image", "text")


class ContentFolder:
    """``items/`` or ``searches/``: rows that may have a picture, a text, or both.

    folder: of Parquet files. id_column: the first of the required ones, what errors name a row by.
    columns: the content column by wanted modality, e.g. {"text": "title"}; the folder may lack it.
    schema: of the folder.
    """

    def __init__(
        self, folder: Path, required: Mapping[str, pa.DataType], columns: Mapping[str, str]
    ) -> None:
        """Look at names and sizes only.

        Raises:
            InputError: missing folder or column, unreadable file, or not a single row.
        """
        dataset = open_dataset(folder)
        self.folder, self.required, self.columns = folder, required, columns
        self.schema, self.num_rows = dataset.schema, dataset.count_rows()
        self.id_column = next(iter(required))
        require_columns(folder, self.schema, required)
        if self.num_rows == 0:
            raise InputError(f"{folder} must hold at least one row, got 0")

    def chunks(self) -> Iterator[tuple[pa.Table, str]]:
        """The rows in order of file names, types checked, and what to call them in complaints.

        Raises:
            InputError: an unreadable row group, a wrong type, a null that must not be.
        """
        nullable = {self.columns[m]: STRING for m in ("text",) if m in self.columns}
        if "image" in self.columns:
            column = self.columns["image"]
            nullable |= {column: BINARY, f"{column}_path": STRING}
        names = [*self.required, *(name for name in nullable if name in self.schema.names)]
        label = f"pack {self.folder.name}"
        with tqdm(total=self.num_rows, desc=label, unit="row", disable=None) as bar:
            for file in parquet_files(self.folder):
                for table, where in read_chunks(file, names):
                    yield check_columns(table, where, self.required, nullable), where
                    bar.update(table.num_rows)

    def contents(self, table: pa.Table, where: str) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """The contents of a chunk by modality: as bytes, see ``picture_bytes``."""
        return {
            modality: picture_bytes(table, column, self.folder)
            if modality == "image"
            else text_bytes(table, column, where)
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


def text_bytes(table: pa.Table, column: str, where: str) -> tuple[pa.Array, np.ndarray]:
    """A string column in UTF-8, blank as missing; all missing without the column.

    Returns:
        (n,) binary, null where missing; and (n,) bool, all False, as no text is a path.

    Raises:
        InputError: bytes that are no text.
    """
    texts = pa.nulls(table.num_rows, STRING)
    if column in table.column_names:
        texts = table[column].combine_chunks()
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{where} column {column} must be UTF-8 text: {error}") from error
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    texts = pc.if_else(blank, pa.scalar(None, STRING), texts)
    return texts.cast(BINARY), np.zeros(len(texts), dtype=bool)


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
