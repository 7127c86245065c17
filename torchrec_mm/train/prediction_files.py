"""Every impression's logit as one Parquet file, merged from the ranks' own without holding it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.files import new_file
from torchrec_mm.train.predictions import Scored

ROW_GROUP_IMPRESSIONS = 1 << 17
SCHEMA = pa.schema(
    {
        "request": pa.int64(),
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "label": pa.int8(),
        "logit": pa.float32(),
    }
)


class RankPredictions:
    """One rank's predictions as they come; a context, complete when it ends."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.writer = pq.ParquetWriter(folder / f"{rank:05}.parquet", SCHEMA, compression="lz4")
        self.held: list[pa.Table] = []
        self.last_request = -1

    def add(self, scored: Scored, user_ids: np.ndarray, item_ids: np.ndarray) -> None:
        """Take impressions; ``user_ids`` and ``item_ids`` are int64, one for each.

        Raises:
            ValueError: requests do not ascend, here or from the last call to this one.
        """
        late = np.diff(scored.requests, prepend=self.last_request) <= 0
        if late.any():
            raise ValueError(f"requests must ascend, got {scored.requests[late][0]} too late")
        self.last_request = int(scored.requests[-1])
        requests = np.repeat(scored.requests, scored.lengths)
        columns = (requests, user_ids, item_ids, scored.labels, scored.logits)
        self.held.append(pa.table(list(columns), schema=SCHEMA))
        if sum(map(len, self.held)) >= ROW_GROUP_IMPRESSIONS:
            self._write()

    def _write(self) -> None:
        self.writer.write_table(pa.concat_tables([SCHEMA.empty_table(), *self.held]))
        self.held = []

    def __enter__(self) -> "RankPredictions":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write()
        self.writer.close()


def merge_predictions(folder: Path, path: Path) -> None:
    """Write all ranks' predictions to ``path`` by request, whole or not at all.

    Memory: two row groups of each rank. A request belongs to one rank, so its candidates keep their
    order.

    Args:
        folder: where the ranks wrote. path: the Parquet file to create or replace.
    """
    ranks = [_Rank(file) for file in sorted(folder.glob("*.parquet"))]
    with new_file(path) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        for rows in _in_order(ranks):
            writer.write_table(rows)


class _Rank:
    """A rank's file and the part of it that is in memory."""

    def __init__(self, path: Path) -> None:
        self.groups = pq.ParquetFile(path).iter_batches(ROW_GROUP_IMPRESSIONS)
        self.head = SCHEMA.empty_table()

    def fill(self) -> bool:
        """Have a row group in memory, or all that is left; False when there is nothing."""
        while len(self.head) < ROW_GROUP_IMPRESSIONS:
            group = next(self.groups, None)
            if group is None:
                break
            self.head = pa.concat_tables([self.head, pa.Table.from_batches([group])])
        return len(self.head) > 0

    def take(self, limit: int) -> pa.Table:
        """The rows in memory up to request ``limit``."""
        requests = self.head["request"].to_numpy()
        count = int(np.searchsorted(requests, limit, side="right"))
        taken, self.head = self.head.slice(0, count), self.head.slice(count)
        return taken


def _in_order(ranks: list[_Rank]) -> Iterator[pa.Table]:
    """Rows by request: what lies below the first row that is still on disk alone."""
    while ranks := [rank for rank in ranks if rank.fill()]:
        limit = min(pc.max(rank.head["request"]).as_py() for rank in ranks)
        rows = pa.concat_tables([rank.take(limit) for rank in ranks])
        yield rows.take(np.argsort(rows["request"].to_numpy(), kind="stable"))
