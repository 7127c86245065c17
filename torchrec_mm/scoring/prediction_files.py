"""What the ranks predict as one Parquet file, merged from their own without holding it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.jagged import list_array, offsets_of
from torchrec_mm.columns.text_ids import IdTexts
from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays
from torchrec_mm.files import new_file
from torchrec_mm.scoring.predictions import Scored

ROW_GROUP_BYTES = 4 << 20
REQUEST = "request"  # the column that rows are ordered by: number in the data set
PER_IMPRESSION = (REQUEST, "user_id", "item_id", "label", "logit")
PER_REQUEST = ("user_id", "timestamp", "candidate_item_ids", "click_probabilities")


def impression_rows(scored: Scored, user_ids: np.ndarray, item_ids: np.ndarray) -> pa.Table:
    """A row an impression: columns ``PER_IMPRESSION``, label int8, logit float32, others int64."""
    requests = np.repeat(scored.requests, scored.lengths)
    columns = (requests, user_ids, item_ids, scored.labels, scored.logits)
    return pa.table(dict(zip(PER_IMPRESSION, columns, strict=True)))


def request_rows(
    scored: Scored, requests: RequestArrays, items: EncodedItems, texts: Mapping[str, IdTexts]
) -> pa.Table:
    """A row a request: its number, then columns ``PER_REQUEST``.

    timestamp only where the data set has it. candidate_item_ids is list<int64>,
    click_probabilities list<float32>, in the order of the candidates. Ids are strings where
    ``texts`` has the texts of user_id or item_id.
    """
    user_ids = requests.user_ids
    columns = {REQUEST: scored.requests, "user_id": user_ids}
    if "user_id" in texts:
        columns["user_id"] = texts["user_id"](user_ids)
    if requests.timestamps is not None:
        columns["timestamp"] = requests.timestamps
    item_ids = items.item_ids[requests.candidates.values]
    named = texts["item_id"](item_ids) if "item_id" in texts else pa.array(item_ids)
    offsets = pa.array(offsets_of(scored.lengths).astype(np.int32))
    columns["candidate_item_ids"] = pa.ListArray.from_arrays(offsets, named)
    columns["click_probabilities"] = list_array(probabilities(scored.logits), scored.lengths)
    return pa.table(columns)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of float32 logits, float32."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64))).astype(np.float32)


class RankPredictions:
    """One rank's rows as they come; a context, complete when it ends.

    A row group holds whole requests, about ``ROW_GROUP_BYTES`` of them.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / f"{rank:05}.parquet"
        self.writer: pq.ParquetWriter | None = None
        self.held: list[pa.Table] = []
        self.last_request = -1

    def add(self, rows: pa.Table) -> None:
        """Take all rows of some requests, like columns each call; ValueError unless they ascend."""
        requests = rows[REQUEST].to_numpy()
        late = np.diff(requests, prepend=self.last_request + 1) < 0
        if late.any():
            raise ValueError(f"requests must ascend, got {requests[late][0]} too late")
        self.last_request = int(requests[-1])
        self.held.append(rows)
        if sum(table.nbytes for table in self.held) >= ROW_GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self.held:
            rows = pa.concat_tables(self.held)
            if self.writer is None:
                self.writer = pq.ParquetWriter(self.path, rows.schema, compression="lz4")
            self.writer.write_table(rows, row_group_size=len(rows))
        self.held = []

    def __enter__(self) -> "RankPredictions":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write()
        if self.writer is not None:
            self.writer.close()


def merge_predictions(folder: Path, path: Path, columns: Sequence[str]) -> None:
    """Write all ranks' rows to ``path`` by request, whole or not at all.

    Memory: two row groups of each rank. A request's rows are of one rank, and keep their order.

    Args:
        folder: where the ranks wrote, one of them at least a row.
        path: the Parquet file to create or replace.
        columns: those of the file, where the ranks wrote them.
    """
    ranks = [_Rank(file) for file in sorted(folder.glob("*.parquet"))]
    schema = ranks[0].file.schema_arrow
    schema = pa.schema([schema.field(name) for name in columns if name in schema.names])
    with new_file(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for rows in _in_order(ranks):
            group = max(1, len(rows) * ROW_GROUP_BYTES // rows.nbytes)
            writer.write_table(rows.select(schema.names), row_group_size=group)


class _Rank:
    """A rank's file and the part of it that is in memory."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.groups = iter(range(self.file.num_row_groups))
        self.head = self.file.schema_arrow.empty_table()

    def fill(self) -> bool:
        """Have a row group in memory, or all that is left; False when there is nothing."""
        while not len(self.head) or self.head.nbytes < ROW_GROUP_BYTES:
            group = next(self.groups, None)
            if group is None:
                break
            self.head = pa.concat_tables([self.head, self.file.read_row_group(group)])
        return len(self.head) > 0

    def take(self, limit: int) -> pa.Table:
        """The rows in memory up to request ``limit``."""
        requests = self.head[REQUEST].to_numpy()
        count = int(np.searchsorted(requests, limit, side="right"))
        taken, self.head = self.head.slice(0, count), self.head.slice(count)
        return taken


def _in_order(ranks: list[_Rank]) -> Iterator[pa.Table]:
    """Rows by request: what lies below the first row that is still on disk alone."""
    while ranks := [rank for rank in ranks if rank.fill()]:
        limit = min(pc.max(rank.head[REQUEST]).as_py() for rank in ranks)
        rows = pa.concat_tables([rank.take(limit) for rank in ranks])
        yield rows.take(np.argsort(rows[REQUEST].to_numpy(), kind="stable"))
