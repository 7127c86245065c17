"""The requests of one split of an encoded data set, written as they come."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 2 << 20
GROUPS_PER_FILE = 64
PLAIN = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


class SplitWriter:
    """Cuts encoded requests into row groups of about ``ROW_GROUP_BYTES`` decoded, in order.

    A row group ends with the request that fills it; a file has ``GROUPS_PER_FILE`` of them. Plain
    pages without compression: reading them is little more than a copy. Each has a checksum.
    """

    def __init__(self, folder: Path) -> None:
        """Create ``folder``."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.lengths: list[np.ndarray] = []
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._groups = 0

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self._flush()
            lengths = self.lengths or [np.empty((0, 2), np.int32)]
            np.save(self.folder / "lengths.npy", np.concatenate(lengths))
        if self._writer is not None:
            self._writer.close()

    def add(self, table: pa.Table, lengths: np.ndarray) -> None:
        """Append requests.

        Args:
            table: encoded requests, always of the same columns.
            lengths: (R, 2) int32, candidates and behaviours of each.
        """
        self.lengths.append(lengths)
        ends = self._pending_bytes + np.cumsum(_request_bytes(table.schema, lengths))
        begin = 0
        for end in _group_ends(ends):
            self._pending.append(table.slice(begin, end - begin))
            self._flush()
            begin = end
        if begin < table.num_rows:
            self._pending.append(table.slice(begin))
            self._pending_bytes = int(ends[-1]) - int(ends[begin - 1] if begin else 0)

    def _flush(self) -> None:
        if not self._pending:
            return
        group = pa.concat_tables(self._pending).combine_chunks()
        self._pending, self._pending_bytes = [], 0
        if self._writer is not None and self._groups % GROUPS_PER_FILE == 0:
            self._writer.close()
            self._writer = None
        if self._writer is None:
            path = self.folder / f"part-{self._groups // GROUPS_PER_FILE:05d}.parquet"
            self._writer = pq.ParquetWriter(path, group.schema, **PLAIN)
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._groups += 1


def _request_bytes(schema: pa.Schema, lengths: np.ndarray) -> np.ndarray:
    """(R,) decoded size of each request, offsets of lists included."""
    fixed, candidate, behaviour = 0, 0, 0
    for field in schema:
        if not pa.types.is_list(field.type):
            fixed += field.type.byte_width
            continue
        fixed += 4
        if field.name in ("candidates", "labels"):
            candidate += field.type.value_type.byte_width
        else:
            behaviour += field.type.value_type.byte_width
    return fixed + lengths @ np.array([candidate, behaviour])


def _group_ends(ends: np.ndarray) -> list[int]:
    """Counts of rows that end a group; ``ends``: (R,) bytes up to the end of each row."""
    cuts, base = [], 0
    while len(ends) and ends[-1] - base >= ROW_GROUP_BYTES:
        row = int(np.searchsorted(ends, base + ROW_GROUP_BYTES))
        cuts.append(row + 1)
        base = int(ends[row])
    return cuts
