"""A table of a checkpoint as a plain file, block by block: no model, no process group, no gather.

The table may be larger than memory. What is held is one block of ``tensor_shards.CHUNK_BYTES``, as
it was read and as it is written.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.runs.checkpoint import checkpoint_shapes, read_row_blocks

KINDS = pa.array(["unseen", "rare", "known"])
SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class SavedTable:
    """A table in a checkpoint and the ids of its rows.

    checkpoint: folder. key: of its weights in it, (rows, E).
    vocabularies: a file of ``Vocabularies``. known_ids: the key in it of the ids of rows 2, 3, ...

    Raises:
        InputError: the number of rows is not what the vocabulary calls for.
    """

    checkpoint: Path
    key: str
    vocabularies: Path
    known_ids: str

    def __post_init__(self) -> None:
        rows = checkpoint_shapes(self.checkpoint)[self.key][0]
        with safe_open(self.vocabularies, framework="numpy") as file:
            known = file.get_slice(self.known_ids).get_shape()[0]
        if rows != known + 2:
            raise InputError(f"{self.key} must have {known + 2} rows, one an id, got {rows}")

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Weights (n, E) of consecutive rows, and the first of them."""
        yield from read_row_blocks(self.checkpoint, self.key)

    def ids(self, start: int, stop: int) -> np.ndarray:
        """(known rows in [start, stop),) int64: rows 0 and 1 are of no single id."""
        with safe_open(self.vocabularies, framework="numpy") as file:
            return file.get_slice(self.known_ids)[max(start - 2, 0) : max(stop - 2, 0)]


def write_parquet(table: SavedTable, path: Path) -> None:
    """One row a table row: ``row``, ``kind``, ``id`` (null unless known) and ``weights``.

    kind: "unseen" for row 0, "rare" for row 1, "known" for the others; see ``Vocabulary``.
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


def write_safetensors(table: SavedTable, path: Path) -> None:
    """``weights`` (rows, E) as saved, and ``known_ids`` (rows - 2,) int64 of rows 2, 3, ..."""
    blocks = table.blocks()
    start, weights = next(blocks)
    rows, width = checkpoint_shapes(table.checkpoint)[table.key]
    weight_bytes = rows * width * weights.element_size()
    header = {
        "weights": {
            "dtype": SAFETENSORS_DTYPES[weights.dtype],
            "shape": [rows, width],
            "data_offsets": [0, weight_bytes],
        },
        "known_ids": {
            "dtype": "I64",
            "shape": [rows - 2],
            "data_offsets": [weight_bytes, weight_bytes + 8 * (rows - 2)],
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


def _arrow(table: SavedTable, start: int, weights: Tensor) -> pa.Table:
    rows = np.arange(start, start + len(weights))
    ids = np.zeros(len(rows), dtype=np.int64)
    ids[rows >= 2] = table.ids(start, start + len(weights))
    values = weights.float() if weights.dtype == torch.bfloat16 else weights
    return pa.table(
        {
            "row": rows,
            "kind": pa.DictionaryArray.from_arrays(np.minimum(rows, 2).astype(np.int8), KINDS),
            "id": pa.array(ids, mask=rows < 2),
            "weights": pa.FixedSizeListArray.from_arrays(
                values.numpy().reshape(-1), weights.shape[1]
            ),
        }
    )
