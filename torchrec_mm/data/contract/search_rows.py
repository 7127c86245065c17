"""What a search led to, as rows of the items: one purchase, and clicks that are hard negatives.

Shape letters: S searches, n searches of a piece, H hard-negative slots.
"""

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex

MAX_HARD_NEGATIVES = 8


class SearchRows:
    """Gathers searches piece by piece."""

    def __init__(self, items: IdIndex) -> None:
        """``items``: all of ``items/``."""
        self._items = items
        self._parts: list[dict[str, np.ndarray]] = []
        self.cut_short = 0  # searches with more clicked items than are kept

    def add(self, table: pa.Table, where: str) -> None:
        """Take the columns of a piece, of the promised types.

        Raises:
            InputError: a purchased or clicked item that is not in items/, a null among the clicks,
                a time of another unit.
        """
        check_seconds(where, "timestamp", table["timestamp"])
        purchased = self._known(table["purchased_item_id"].to_numpy(), where, "purchased_item_id")
        self._parts.append(
            {
                "search_ids": table["search_id"].to_numpy(),
                "timestamps": table["timestamp"].to_numpy(),
                "purchased": purchased,
                "hard": self._hard(table["clicked_item_ids"], purchased, where),
            }
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All pieces in one.

        Returns:
            search_ids, timestamps and purchased (S,) int64; hard (S, H) int64, the first H <= 8
            items clicked but not bought, -1 in empty slots, H no larger than some search needs.
        """
        names = self._parts[0]
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in names}
        width = int((joined["hard"] >= 0).sum(axis=1).max(initial=0))
        return joined | {"hard": joined["hard"][:, :width]}

    def _known(self, item_ids: np.ndarray, where: str, column: str) -> np.ndarray:
        rows = self._items.rows(item_ids)
        if (rows < 0).any():
            raise InputError(
                f"{where} column {column} must be in items/, got {item_ids[rows < 0][0]} "
                f"({(rows < 0).sum()} such values)"
            )
        return rows

    def _hard(self, clicked: pa.ChunkedArray, purchased: np.ndarray, where: str) -> np.ndarray:
        """(n, 8) item rows, -1 padded; the purchased item is never its own hard negative."""
        lists = clicked.combine_chunks()
        lengths = np.diff(lists.offsets.to_numpy())
        values = lists.flatten()
        if values.null_count:
            raise InputError(f"{where} column clicked_item_ids must not hold nulls")
        rows = self._known(values.to_numpy(), where, "clicked_item_ids")
        search = np.repeat(np.arange(len(lengths)), lengths)
        bought = rows == purchased[search]
        search, rows = search[~bought], rows[~bought]
        slot = np.arange(len(search)) - np.searchsorted(search, search)  # within its own list
        kept = slot < MAX_HARD_NEGATIVES
        self.cut_short += int((slot == MAX_HARD_NEGATIVES).sum())
        hard = np.full((len(lengths), MAX_HARD_NEGATIVES), -1, dtype=np.int64)
        hard[search[kept], slot[kept]] = rows[kept]
        return hard
