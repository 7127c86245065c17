"""The data of the short benchmark's baseline: one row an impression, its padded history inside.

The layout that FuxiCTR trains on. Ids are our side's table rows plus one, so that both sides know
the same ids and share a row among the same rare ones; 0 is padding.

Shape letters: I impressions, L behaviours.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from torchrec_mm.columns.parquet import write_table
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.parallel.process_group import Worker

ROWS_FILE = "num_rows.json"  # of each table, padding's among them
GROUP_BY = "user"  # the id that GAUC groups by; no model sees it
LABEL = "label"
HISTORY = "history_"  # before the name of an item's column


def join_rows(encoded: Path, folder: Path, behaviours: int) -> None:
    """Write train.parquet, test.parquet and the sizes of the tables of an encoded data set.

    ``behaviours``: L, of every history.
    """
    with new_folder(folder) as aside:
        for split in ("train", "test"):
            data = EncodedRequests(encoded, split)
            parts = [_join(data, number, behaviours) for number in range(len(data.groups))]
            write_table(aside / f"{split}.parquet", pa.concat_tables(parts))
        write_json(aside / ROWS_FILE, {name: rows + 1 for name, rows in data.num_rows.items()})


def _join(data: EncodedRequests, number: int, behaviours: int) -> pa.Table:
    """The impressions of one row group."""
    requests = data.read(data.groups[number])
    owner = requests.candidates.owners()
    newest, _ = requests.behaviours.newest(behaviours)
    columns = {GROUP_BY: pa.array(requests.user_ids[owner])}
    for name, rows in requests.request_rows.items():
        columns[name] = pa.array(rows[owner] + 1)
    for name, rows in zip(data.items.features, data.items.rows, strict=True):
        history_RL = np.zeros((len(requests), behaviours), dtype=np.int32)
        history_RL[np.arange(behaviours) < newest.lengths[:, None]] = rows[newest.values] + 1
        columns[name] = pa.array(rows[requests.candidates.values] + 1)
        columns[HISTORY + name] = pa.FixedSizeListArray.from_arrays(
            pa.array(history_RL[owner].ravel()), behaviours
        )
    return pa.table({**columns, LABEL: pa.array(requests.labels.astype(np.float32))})


class JoinedRows(Dataset):
    """A joined file in memory; an item is a batch: the rows asked for, {column: (B,) or (B, L)}.

    Ids are int32, labels float32.
    """

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path).combine_chunks()
        self.columns = {name: torch.from_numpy(_array(table[name])) for name in table.column_names}

    def __len__(self) -> int:
        return len(self.columns[LABEL])

    def __getitem__(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: column[rows] for name, column in self.columns.items()}


def _array(column: pa.ChunkedArray) -> np.ndarray:
    (chunk,) = column.chunks
    if not pa.types.is_fixed_size_list(column.type):
        return chunk.to_numpy(zero_copy_only=False).copy()
    return chunk.flatten().to_numpy().reshape(-1, column.type.list_size).copy()


class RowBatches(Sampler[Tensor]):
    """The row numbers of each batch; shuffled anew in each epoch, if there is a generator.

    Of each global batch a rank takes its share.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_rows, self.batch_size, self.generator = num_rows, batch_size, generator
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Tensor]:
        rows = torch.arange(self.num_rows)
        if self.generator is not None:
            rows = torch.randperm(self.num_rows, generator=self.generator)
        for batch in rows.split(self.batch_size):
            if len(batch) >= self.world_size:  # else some rank would have none
                yield batch[self.rank :: self.world_size]


def rows_loader(
    rows: JoinedRows,
    batch_size: int,
    workers: int,
    *,
    generator: torch.Generator | None = None,
    worker: Worker | None = None,
) -> DataLoader:
    """Batches of ``rows``, shuffled if there is a ``generator``.

    Args:
        rows: all of them. batch_size: of a global batch.
        workers: processes that read ahead, 0 to read in this one.
        worker: whose share of each batch this is, None for all of it.
    """
    rank, world_size = (worker.rank, worker.world_size) if worker else (0, 1)
    return DataLoader(
        rows,
        sampler=RowBatches(len(rows), batch_size, generator, rank, world_size),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=worker is not None and worker.device.type == "cuda",
    )
