"""The data of the ranker's baseline: one row an impression, its user's whole history inside.

The layout that today's public reference code trains on (arXiv:2512.07216 and the TAOBAO-MM data
set): the published tables joined on disk, and each column's ids sorted beside them, a table row
being the place of an id among them plus one.

Column names are the data set's: 129_1 user, 130_* profile, 150_2_180 and 151_2_180 items and
categories of past clicks, 205 item, 206, 213 and 214 its attributes, label_0 [no click, click].
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

USER = "129_1"
USER_COLUMNS = (USER, "130_1", "130_2", "130_3", "130_4", "130_5")
ITEM, CATEGORY = "205", "206"
ITEM_COLUMNS = (ITEM, CATEGORY, "213", "214")
PAST_ITEMS, PAST_CATEGORIES = "150_2_180", "151_2_180"
PAST = {ITEM: PAST_ITEMS, CATEGORY: PAST_CATEGORIES}
LABEL = "label_0"
VECTOR_KEYS, VECTORS = "vector_keys", "vectors"
ROW_GROUP = 10_000
PADDED_LENGTH = 1000


def join_tables(tables: Path, folder: Path) -> None:
    """Write ``train.parquet``, ``test.parquet`` and the sorted ids into ``folder``.

    Args:
        tables: folder of the published tables. folder: exists already.
    """
    items = pq.read_table(tables / "item_features.parquet")
    for split in ("train", "test"):
        users = pq.read_table(tables / f"{split}_user_features.parquet")
        samples = pq.read_table(tables / f"{split}_samples.parquet")
        _join(samples, users, items, folder / f"{split}.parquet")
        if split == "train":
            for column in (*USER_COLUMNS, *ITEM_COLUMNS):
                known = (users if column in USER_COLUMNS else items)[column]
                parts = [known, pc.list_flatten(users[PAST[column]])] if column in PAST else [known]
                keys = np.unique(np.concatenate([part.to_numpy() for part in parts]))
                np.save(folder / f"{column}.npy", keys)
    vectors = pq.read_table(tables / "scl_embedding_int8_p90.parquet").combine_chunks()
    keys = vectors[ITEM].to_numpy()
    values = pc.list_flatten(vectors["205_c"]).to_numpy().reshape(len(keys), -1)
    order = np.argsort(keys)
    np.save(folder / f"{VECTOR_KEYS}.npy", keys[order])
    np.save(folder / f"{VECTORS}.npy", values[order])


def _join(samples: pa.Table, users: pa.Table, items: pa.Table, path: Path) -> None:
    users, items = users.combine_chunks(), items.combine_chunks()
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


def collate(rows: Sequence[pandas.Series]) -> dict[str, Tensor]:
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
