"""Data sets cut from one: a validation split out of training, and shares of training.

Shape letters: R requests.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.files import data_files
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.data.contract.feature_settings import FILE
from torchrec_mm.files import new_folder

SEED = 0


def cut(data: Path, folder: Path, *, share: float, validation: float | None) -> None:
    """Write a data set whose training is a part of another's; items and settings are linked.

    Args:
        data: folder of the data contract. folder: new. share: of the training requests kept, drawn
            by their number. validation: share that becomes the test split, cut off before; None:
            the test split is that of ``data``.
    """
    train = data / "requests" / "train"
    last = is_last(data, validation) if validation else np.zeros(len(read_users(train)), bool)
    kept = np.random.default_rng(SEED).random(len(last)) < share
    with new_folder(folder) as aside:
        (aside / "items").symlink_to((data / "items").resolve())
        if (data / FILE).is_file():
            (aside / FILE).symlink_to((data / FILE).resolve())
        requests = aside / "requests"
        requests.mkdir()
        _write(train, requests / "train", kept & ~last)
        if validation:
            _write(train, requests / "test", last)
        else:
            (requests / "test").symlink_to((data / "requests" / "test").resolve())


def is_last(data: Path, validation: float) -> np.ndarray:
    """(R,) bool, True for the training requests that validate.

    As the test split was cut: the last of all by time where it begins when training ends, else the
    last of each user, by time or, without timestamps, by their order.
    """
    train, test = data / "requests" / "train", data / "requests" / "test"
    users, times = read_users(train), read_times(train)
    if times is None:
        times = np.arange(len(users))
    else:
        of_test = read_times(test)
        if of_test is not None and of_test.min() >= times.max():
            return times > np.quantile(times, 1 - validation)
    order = np.lexsort((np.arange(len(users)), times, users))
    first = np.flatnonzero(np.diff(users[order], prepend=users[order][0] - 1))
    count = np.diff(first, append=len(users))
    place = np.arange(len(users)) - np.repeat(first, count)
    last = np.empty(len(users), bool)
    last[order] = place >= np.repeat(count - np.floor(count * validation).astype(int), count)
    return last


def read_users(folder: Path) -> np.ndarray:
    """(R,) int64."""
    return np.concatenate([t["user_id"].to_numpy() for t in _tables(folder, ["user_id"])])


def read_times(folder: Path) -> np.ndarray | None:
    """(R,) int64 seconds, None where requests have none."""
    if any("timestamp" not in pq.read_schema(file).names for file in data_files(folder)):
        return None
    return np.concatenate([t["timestamp"].to_numpy() for t in _tables(folder, ["timestamp"])])


def _tables(folder: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    return (pq.read_table(file, columns=columns) for file in data_files(folder))


def _write(source: Path, folder: Path, kept: np.ndarray) -> None:
    folder.mkdir()
    start = 0
    for number, table in enumerate(_tables(source)):
        some = table.filter(pa.array(kept[start : start + len(table)]))
        start += len(table)
        if len(some):
            write_table(folder / f"part-{number:05}.parquet", some)
