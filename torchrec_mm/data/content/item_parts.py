"""How `items/` is cut into parts: from the files' footers alone, alike on every rank."""

import math
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.columns.reading import read_metadata

MAX_ROWS, MIN_ROWS = 8192, 512
MAX_BYTES = 1 << 28
WANTED_PARTS = 64  # enough to share among ranks and to lose little in a restart


@dataclass(frozen=True)
class ItemPart:
    """Rows [start, stop) of a run of row groups of one file, counted from the first group's first.

    first: number of row ``start`` among the rows of all files.
    """

    file: Path
    groups: tuple[int, ...]
    start: int
    stop: int
    first: int

    def __len__(self) -> int:
        return self.stop - self.start


def parts_of(files: list[Path]) -> list[ItemPart]:
    """Cut files into parts of at most ``MAX_ROWS`` rows and about ``MAX_BYTES`` before compression.

    Small row groups are joined, a large one is cut into ranges of nearly equal length. A small
    catalogue is cut finer, into ``WANTED_PARTS``, down to ``MIN_ROWS``.

    Raises:
        InputError: an unreadable file.
    """
    groups = {file: _row_groups(file) for file in files}
    total = sum(rows for of_file in groups.values() for rows, _ in of_file)
    limit = min(MAX_ROWS, max(MIN_ROWS, -(-total // WANTED_PARTS)))
    parts: list[ItemPart] = []
    first = 0
    for file, of_file in groups.items():
        shares = [max(rows / limit, size / MAX_BYTES) for rows, size in of_file]
        for run in _runs(shares):
            rows = sum(of_file[group][0] for group in run)
            pieces = min(rows, math.ceil(shares[run[0]])) if len(run) == 1 else 1
            for piece in range(pieces):
                start, stop = rows * piece // pieces, rows * (piece + 1) // pieces
                parts.append(ItemPart(file, run, start, stop, first + start))
            first += rows
    return parts


def _runs(shares: list[float]) -> list[tuple[int, ...]]:
    """Row groups side by side that fill one part together; one that fills several stands alone."""
    runs: list[tuple[int, ...]] = []
    filled = 0.0
    for group, share in enumerate(shares):
        if runs and filled + share <= 1:
            runs[-1] += (group,)
            filled += share
        else:
            runs.append((group,))
            filled = share
    return runs


def _row_groups(file: Path) -> list[tuple[int, int]]:
    """(rows, bytes before compression) of each row group."""
    footer = read_metadata(file)
    groups = (footer.row_group(group) for group in range(footer.num_row_groups))
    return [(group.num_rows, group.total_byte_size) for group in groups]
