"""Text as int64 ids, the same everywhere and for ever, and the way back.

The id is the first 63 bits of the MD5 of the text in UTF-8, never negative: 8 bytes of the digest,
the first one the highest, shifted right by one bit. Any language and most databases can repeat it.
Of a hundred million texts, two share an id with probability 0.0005: whoever has all of them must
look (``data.logs.id_maps`` does).

A map is a Parquet file with columns id, int64, ascending, and text; ``ids/`` of a data folder holds
those that its logs and its catalogue need.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.parquet import INT64, STRING, check_columns
from torchrec_mm.columns.parquet_folder import concat_files
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex

MAPS = {"user_id": "users.parquet", "item_id": "items.parquet"}
MAP_SCHEMA = pa.schema({"id": INT64, "text": STRING})


def hash_text(text: str) -> int:
    """The id of a text, 0 to 2^63 - 1."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def hash_texts(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(N,) int64 ids of N strings; null stays null."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    encoded = texts.cast(STRING).dictionary_encode()
    ids = pa.array(map(hash_text, encoded.dictionary.to_pylist()), INT64)
    return ids.take(encoded.indices)


def id_maps(folder: Path) -> dict[str, Path]:
    """The maps in a folder like ``ids/``, by column; InputError if there is none."""
    found = {name: folder / file for name, file in MAPS.items() if (folder / file).exists()}
    if not found:
        raise InputError(f"ids must be a folder with {' or '.join(MAPS.values())}, got {folder}")
    return found


class IdTexts:
    """The texts of some ids."""

    def __init__(self, file: Path, ids: np.ndarray) -> None:
        """Read the map a piece at a time, and keep what may be asked for.

        Args:
            file: a map. ids: (n,) int64, in any order, with or without repeats.

        Raises:
            InputError: an unreadable file, or no map.
        """
        self.file = file
        wanted = pa.array(np.unique(ids), INT64)
        found = [MAP_SCHEMA.empty_table()]
        for table, where in read_chunks(file):
            table = check_columns(table, where, {"id": INT64, "text": STRING})
            found.append(table.filter(pc.is_in(table["id"], wanted)).select(MAP_SCHEMA.names))
        table = concat_files(found).combine_chunks()
        self._index = IdIndex(table["id"].to_numpy())
        self._texts = table["text"]

    def __call__(self, ids: np.ndarray) -> pa.Array:
        """(n,) strings of (n,) int64 ids; InputError for one that the map does not have."""
        rows = self._index.rows(ids)
        if (rows < 0).any():
            raise InputError(f"{self.file} must hold every id, got none for {ids[rows < 0][0]}")
        return self._texts.take(pa.array(rows)).combine_chunks()
