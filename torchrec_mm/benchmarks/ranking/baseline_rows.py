"""The data of the ranker's baseline: one row an impression, its user's whole history inside.

The layout that today's public reference code trains on (arXiv:2512.07216 and the TAOBAO-MM data
set): the published tables joined on disk, and each column's ids sorted beside them, a table row
being the place of an id among them plus one.

Column names are the data set's: 129_1 user, 130_* profile, 150_2_180 and 151_2_180 items and
categories of past clicks, 205 item, 206, 213 and 214 its attributes, label_0 [no click, click].
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from torchrec_mm.data.encode.taobao_mm_files import (
    CATEGORY,
    ITEM,
    ITEM_ATTRIBUTES,
    LABEL,
    PAST_CATEGORIES,
    PAST_ITEMS,
    PROFILE,
    USER,
    VECTOR,
    VECTORS,
    table_files,
)
from torchrec_mm.files import new_folder

if TYPE_CHECKING:  # our side of the benchmarks is measured without it in memory
    import pandas

VECTOR_KEYS_FILE, VECTORS_FILE = "vector_keys.npy", "vectors.npy"
USER_COLUMNS = (USER, *PROFILE)
ITEM_COLUMNS = (ITEM, *ITEM_ATTRIBUTES)
PAST = {ITEM: PAST_ITEMS, CATEGORY: PAST_CATEGORIES}
ROW_GROUP = 10_000
PADDED_LENGTH = 1000


def join_tables(tables: Path, folder: Path) -> None:
    """Write train.parquet, test.parquet, sorted ids of the published ``tables`` to ``folder``."""
    items = read_table(tables, "item_features")
    with new_folder(folder) as aside:
        for split in ("train", "test"):
            users = read_table(tables, f"{split}_user_features")
            _join(read_table(tables, f"{split}_samples"), users, items, aside / f"{split}.parquet")
            if split == "train":
                _save_ids(users, items, aside)
        vectors = read_table(tables, VECTORS)
        keys = vectors[ITEM].to_numpy()
        values = pc.list_flatten(vectors[VECTOR]).to_numpy().reshape(len(keys), -1)
        order = np.argsort(keys)
        np.save(aside / VECTOR_KEYS_FILE, keys[order])
        np.save(aside / VECTORS_FILE, values[order])


def read_table(tables: Path, name: str) -> pa.Table:
    """All files of a published table."""
    return pa.concat_tables(map(pq.read_table, table_files(tables, name))).combine_chunks()


def _save_ids(users: pa.Table, items: pa.Table, folder: Path) -> None:
    for column in (*USER_COLUMNS, *ITEM_COLUMNS):
        parts = [(users if column in USER_COLUMNS else items)[column]]
        if column in PAST:
            parts.append(pc.list_flatten(users[PAST[column]]))
        keys = np.unique(np.concatenate([part.to_numpy() for part in parts]))
        np.save(folder / f"{column}.npy", keys)


def _join(samples: pa.Table, users: pa.Table, items: pa.Table, path: Path) -> None:
    writer = None
    for start in range(0, len(samples), ROW_GROUP):
        part = samples.slice(start, ROW_GROUP)
        of_user = users.take(pc.index_in(part[USER], users[USER]))
        of_item = items.take(pc.index_in(part[ITEM], items[ITEM]))
        columns = {LABEL: part[LABEL]}
        columns |= {name: of_user[name] for name in (*USER_COLUMNS, *PAST.values())}
        columns |= {name: of_item[name] for name in ITEM_COLUMNS}
        joined = pa.table(columns)
        if writer is None:
            writer = pq.ParquetWriter(path, joined.schema, compression="zstd", use_dictionary=False)
        writer.write_table(joined, row_group_size=ROW_GROUP)
    assert writer is not None  # a table has samples
    writer.close()


class JoinedRows(IterableDataset):
    """Batches of a joined file, in its order, built row by row.

    A batch is {column: (B,) int64} and, under PAST_ITEMS and PAST_CATEGORIES, (B, 1000) int64,
    newest last, zeros in front; "label": (B,) float32. Row groups are dealt out to ranks and to
    each rank's worker processes.
    """

    def __init__(self, path: Path, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self.path, self.batch_size = path, batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        mine, of = self.rank * workers + number, self.world_size * workers
        rows: list[pandas.Series] = []
        with pq.ParquetFile(self.path) as file:
            for group in range(mine, file.num_row_groups, of):
                for _, row in file.read_row_group(group).to_pandas().iterrows():
                    rows.append(row)
                    if len(rows) == self.batch_size:
                        yield collate(rows)
                        rows = []
        if rows:
            yield collate(rows)


def collate(rows: "Sequence[pandas.Series]") -> dict[str, Tensor]:
    """Stack the rows of a batch."""
    batch = {
        name: torch.from_numpy(np.array([row[name] for row in rows], dtype=np.int64))
        for name in (*USER_COLUMNS, *ITEM_COLUMNS)
    }
    for name in PAST.values():
        batch[name] = torch.from_numpy(np.array([padded(row[name].tolist()) for row in rows]))
    batch["label"] = torch.tensor([float(row[LABEL][1]) for row in rows])
    return batch


def padded(ids: list[int]) -> list[int]:
    """The newest 1000 ids, zeros in front of a shorter list."""
    return [0] * (PADDED_LENGTH - len(ids)) + ids[-PADDED_LENGTH:]


def rows_loader(
    path: Path, batch_size: int, workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Batches of one rank; ``workers`` processes read ahead, 0 reads in this one."""
    rows = JoinedRows(path, batch_size, rank, world_size)
    return DataLoader(rows, batch_size=None, num_workers=workers)
