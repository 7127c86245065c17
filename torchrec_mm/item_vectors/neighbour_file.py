"""The neighbours of all items, or of texts, as one Parquet file.

Columns: ``item_id`` int64, ascending, or ``query`` string, as given; ``neighbour_ids``
list<int64>, nearest first; ``cosines`` list<float> beside them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.files import new_file
from torchrec_mm.item_vectors.neighbours import NeighbourHits, Search, neighbours_of

QUERY_ITEMS = 4096  # searched at once, one row group of the file
FOUND = [("neighbour_ids", pa.list_(pa.int64())), ("cosines", pa.list_(pa.float32()))]
SCHEMA = pa.schema([("item_id", pa.int64()), *FOUND])
TEXT_SCHEMA = pa.schema([("query", pa.string()), *FOUND])


def write_neighbours(search: Search, k: int, path: Path) -> None:
    """Write the k nearest other items of every item, whole or not at all; in bounded memory."""
    item_ids = np.asarray(search.vectors.item_ids)
    with new_file(path) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        with tqdm(total=len(item_ids), unit="item", desc="search", disable=None) as progress:
            for start in range(0, len(item_ids), QUERY_ITEMS):
                queries = item_ids[start : start + QUERY_ITEMS]
                found = neighbours_of(search, queries, k)
                writer.write_table(_table(pa.array(queries), found, item_ids, SCHEMA))
                progress.update(len(queries))


def write_text_neighbours(
    search: Search, texts: Sequence[str], queries: np.ndarray, k: int, path: Path
) -> None:
    """Write the k items nearest to each text, whose vectors are ``queries`` (Q, D)."""
    found = search.search(queries, k)
    table = _table(pa.array(texts), found, np.asarray(search.vectors.item_ids), TEXT_SCHEMA)
    with new_file(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def _table(
    queries: pa.Array, found: NeighbourHits, item_ids: np.ndarray, schema: pa.Schema
) -> pa.Table:
    offsets = np.append(0, found.mask.sum(axis=1).cumsum()).astype(np.int32)
    lists = (
        pa.ListArray.from_arrays(offsets, pa.array(values[found.mask]))
        for values in (item_ids[found.rows], found.cosines)
    )
    return pa.table([queries, *lists], schema=schema)
