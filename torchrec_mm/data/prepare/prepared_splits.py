"""What was prepared, from the footers of its Parquet files: no row is read again."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from torchrec_mm.errors import InputError

SPLITS = {"train": "nothing is learned from it", "test": "it has neither AUC nor GAUC"}


@dataclass(frozen=True)
class Split:
    """requests, impressions: how many. labels: the different ones."""

    requests: int
    impressions: int
    labels: frozenset[int]

    @classmethod
    def of(cls, folder: Path) -> "Split":
        """Count in the Parquet files of a folder that this package or Spark has written."""
        requests = impressions = 0
        labels: set[int] = set()
        for file in folder.glob("*.parquet"):
            footer = pq.read_metadata(file)
            requests += footer.num_rows
            for group in map(footer.row_group, range(footer.num_row_groups)):
                if group.num_rows:
                    column = _labels(group)
                    impressions += column.num_values
                    labels |= {column.statistics.min, column.statistics.max}
        return cls(requests, impressions, frozenset(labels))


def read_splits(requests: Path, no_click: str) -> dict[str, Split]:
    """The splits below a folder ``requests/``, by name.

    Args:
        requests: folder of the splits. no_click: what may be wrong where no label is 1.

    Raises:
        InputError: one split holds no request, or none of them a label 1.
    """
    splits = {name: Split.of(requests / name) for name in SPLITS}
    for name, split in splits.items():
        if split.requests == 0:
            rule = f"requests/{name} must hold at least one request"
            raise InputError(f"{rule}, got 0: too few rows to split")
    if not any(1 in split.labels for split in splits.values()):
        impressions = sum(split.impressions for split in splits.values())
        rule = "requests must hold a label 1"
        raise InputError(f"{rule}, got 0 for all {impressions} impressions: {no_click}")
    return splits


def notes_on(splits: dict[str, Split]) -> list[str]:
    """A line on each split of one label alone."""
    return [
        f"requests/{name} holds label {min(split.labels)} alone: {SPLITS[name]}"
        for name, split in splits.items()
        if len(split.labels) == 1
    ]


def _labels(group: pq.RowGroupMetaData) -> pq.ColumnChunkMetaData:
    columns = map(group.column, range(group.num_columns))
    return next(column for column in columns if column.path_in_schema.startswith("labels."))
