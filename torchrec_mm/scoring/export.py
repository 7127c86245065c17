"""A table of a checkpoint as a plain file, block by block: no model, no process group, no gather.

The table may be larger than memory. What is held is one block of ``tensor_shards.CHUNK_BYTES``, as
it was read and as it is written.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from torchrec_mm.data.contract.features import NULL
from torchrec_mm.data.encoded.vocabulary import texts_of
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.ranking.row_owners import EMPTY
from torchrec_mm.runs.checkpoint import checkpoint_shapes, read_row_blocks

KINDS = pa.array(["unseen", "rare", "known", "null", "free", "rest"])
KNOWN, OF_NULL, FREE, REST = 2, 3, 4, 5
SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class SavedTable:
    """A table in a checkpoint and the ids of its rows.

    checkpoint: folder. key: of its weights in it, (rows, E).
    vocabularies: a file of ``Vocabularies``. feature: its key in it, ``<group>/<name>``.

    Raises:
        InputError: the number of rows is not what the vocabulary calls for.
    """

    checkpoint: Path
    key: str
    vocabularies: Path
    feature: str
    ids_name = "known_ids"
    shared = 2  # rows, the first, that are of no single id

    def __post_init__(self) -> None:
        rows = checkpoint_shapes(self.checkpoint)[self.key][0]
        with safe_open(self.vocabularies, framework="numpy") as file:
            known = file.get_slice(f"known_ids/{self.feature}").get_shape()[0]
        if rows != known + 2:
            raise InputError(f"{self.key} must have {known + 2} rows, one an id, got {rows}")

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Weights (n, E) of consecutive rows, and the first of them."""
        yield from read_row_blocks(self.checkpoint, self.key)

    def ids(self, start: int, stop: int) -> np.ndarray:
        """(known rows in [start, stop),) int64: rows 0 and 1 are of no single id."""
        with safe_open(self.vocabularies, framework="numpy") as file:
            known = file.get_slice(f"known_ids/{self.feature}")
            return known[max(start - 2, 0) : max(stop - 2, 0)]

    def texts(self, start: int, stop: int) -> pa.Array | None:
        """What the ``ids`` stand for, null for ``NULL``; None where they are numbers themselves."""
        first, end = max(start - 2, 0), max(stop - 2, 0)
        with safe_open(self.vocabularies, framework="numpy") as file:
            if f"text_ends/{self.feature}" not in file.keys():
                return None
            ends = file.get_slice(f"text_ends/{self.feature}")[max(first - 1, 0) : end]
            offsets = ends if first else np.append([0], ends)
            text_bytes = np.empty(0, np.uint8)
            if offsets[0] < offsets[-1]:  # else it might be out of bounds to safetensors
                text_bytes = file.get_slice(f"text_bytes/{self.feature}")[offsets[0] : offsets[-1]]
        return texts_of(self.ids(start, stop), text_bytes, offsets - offsets[0])

    def described(self, start: int, stop: int) -> tuple[np.ndarray, pa.Array]:
        """(n,) int8 places in ``KINDS`` of the rows [start, stop), and their ids."""
        rows = np.arange(start, stop)
        ids = np.zeros(len(rows), dtype=np.int64)
        ids[rows >= 2] = self.ids(start, stop)
        is_null = (rows >= 2) & (ids == NULL)
        kinds = np.where(is_null, OF_NULL, np.minimum(rows, 2)).astype(np.int8)
        texts = self.texts(start, stop)
        if texts is None:
            return kinds, pa.array(ids, mask=(rows < 2) | is_null)
        return kinds, pa.concat_arrays([pa.nulls(np.count_nonzero(rows < 2), texts.type), texts])


@dataclass(frozen=True)
class RawTable:
    """A table of raw ids in a checkpoint, and which id owns which row; see ``RowOwners``.

    checkpoint: folder. key: of its weights in it. owners_key: of the ids. partitions: that the rows
    are cut into; the last row of each is for the ids that own none.
    """

    checkpoint: Path
    key: str
    owners_key: str
    partitions: int
    owners: np.ndarray = field(init=False, repr=False)
    ids_name = "owner_ids"
    shared = 0

    def __post_init__(self) -> None:
        blocks = read_row_blocks(self.checkpoint, self.owners_key)
        owners = torch.cat([ids for _, ids in blocks]).numpy()
        object.__setattr__(self, "owners", owners)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """As of ``SavedTable``."""
        yield from read_row_blocks(self.checkpoint, self.key)

    def ids(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64 owners, ``EMPTY`` where there is none."""
        return self.owners[start:stop]

    def described(self, start: int, stop: int) -> tuple[np.ndarray, pa.Array]:
        """As of ``SavedTable``."""
        ids, size = self.ids(start, stop), len(self.owners) // self.partitions
        is_last = np.arange(start + 1, stop + 1) % size == 0
        kinds = np.where(is_last, REST, np.where(ids == EMPTY, FREE, KNOWN)).astype(np.int8)
        return kinds, pa.array(ids, mask=ids == EMPTY)


def file_of(group: str, feature: str, shared: str | None = None) -> str:
    """Where a table lies among exported ones, without its ending.

    ``shared``: its name if several features share it.
    """
    folder, name = (group, feature) if shared is None else ("shared", shared)
    return f"{folder}/{quote(name, safe='')}"


def write_parquet(table: SavedTable | RawTable, path: Path) -> None:
    """One row a table row: ``row``, ``kind``, ``id`` (null unless known) and ``weights``.

    kind: "unseen" for row 0, "rare" for row 1, "null" for that of null, "known" for the others; see
    ``Vocabulary``. Of raw ids: "known" if one owns the row, "rest" for those that own none, "free".
    id: int64, or the text itself.
    """
    writer = None
    with new_file(path) as aside:
        try:
            for start, weights in table.blocks():
                batch = _arrow(table, start, weights)
                if writer is None:
                    writer = pq.ParquetWriter(aside, batch.schema, compression="none")
                writer.write_table(batch, row_group_size=len(batch))
        finally:
            if writer is not None:
                writer.close()


def write_safetensors(table: SavedTable | RawTable, path: Path) -> None:
    """``weights`` (rows, E) as saved, and ``known_ids`` (rows - 2,) int64 of rows 2, 3, ...

    Of text the ids are hashes: ``columns.text_ids``. Of raw ids they are ``owner_ids`` (rows,).
    """
    blocks = table.blocks()
    start, weights = next(blocks)
    rows, width = checkpoint_shapes(table.checkpoint)[table.key]
    weight_bytes, num_ids = rows * width * weights.element_size(), rows - table.shared
    header = {
        "weights": {
            "dtype": SAFETENSORS_DTYPES[weights.dtype],
            "shape": [rows, width],
            "data_offsets": [0, weight_bytes],
        },
        table.ids_name: {
            "dtype": "I64",
            "shape": [num_ids],
            "data_offsets": [weight_bytes, weight_bytes + 8 * num_ids],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with new_file(path) as aside, aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        ends = []
        while True:
            file.write(weights.view(torch.uint8).numpy().data)
            ends.append(start + len(weights))
            if ends[-1] == rows:
                break
            start, weights = next(blocks)
        for first, stop in zip([0, *ends], ends, strict=False):
            file.write(table.ids(first, stop).astype("<i8").data)


def _arrow(table: SavedTable | RawTable, start: int, weights: Tensor) -> pa.Table:
    kinds, ids = table.described(start, start + len(weights))
    values = weights.float() if weights.dtype == torch.bfloat16 else weights
    return pa.table(
        {
            "row": np.arange(start, start + len(weights)),
            "kind": pa.DictionaryArray.from_arrays(kinds, KINDS),
            "id": ids,
            "weights": pa.FixedSizeListArray.from_arrays(
                values.numpy().reshape(-1), weights.shape[1]
            ),
        }
    )
