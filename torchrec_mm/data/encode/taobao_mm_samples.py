"""The samples of one TAOBAO-MM split, found by user."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from torchrec_mm.columns.chunks import count_rows, read_chunks
from torchrec_mm.columns.jagged import Jagged, ragged_positions
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.data.encode.taobao_mm_files import ITEM, LABEL, SAMPLE_COLUMNS, USER
from torchrec_mm.errors import InputError


class UserSamples:
    """Items and labels by user, memory-mapped from flat copies in a temporary folder.

    In memory: one entry for each stretch of samples of one user, about one a user in the
    published files, which are grouped by user; files in another order only cost memory.
    """

    def __init__(self, files: list[Path], folder: Path) -> None:
        """Copy samples into ``folder``; InputError if unreadable, mistyped or not one-hot."""
        users, begins = _copy(files, folder)
        total = int(begins[-1])
        self.items = _map(folder / "items", np.int64, total)
        self.labels = _map(folder / "labels", np.int8, total)
        order = np.argsort(users, kind="stable")
        self._users = users[order]
        self._begins = begins[:-1][order]
        self._lengths = np.diff(begins)[order]
        first = np.concatenate([[True], self._users[1:] != self._users[:-1]])[: len(users)]
        self.users = self._users[first]
        """(N,) int64, ascending: those who have samples."""

    def __len__(self) -> int:
        return len(self.items)

    def of(self, users: np.ndarray) -> tuple[Jagged, np.ndarray]:
        """Candidates and labels of users: (R,) int64, each with samples.

        Returns:
            R lists of int64 items in the order of the files, and int8 labels of all of them.
        """
        first = np.searchsorted(self._users, users, side="left")
        end = np.searchsorted(self._users, users, side="right")
        stretches = ragged_positions(first, end - first)
        lengths = self._lengths[stretches]
        positions = ragged_positions(self._begins[stretches], lengths)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        offsets = ends[np.concatenate([[0], np.cumsum(end - first)])]
        return Jagged(self.items[positions], offsets), self.labels[positions]


def _copy(files: list[Path], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write ``items`` and ``labels``.

    Returns:
        (K,) int64 user of each stretch, and (K + 1,) int64 where they begin and the last ends.
    """
    users, begins, done = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    rows = sum(map(count_rows, files))
    with (
        (folder / "items").open("wb") as items,
        (folder / "labels").open("wb") as labels,
        tqdm(total=rows, desc="samples", unit="sample", disable=None) as bar,
    ):
        for file in files:
            for table, where in read_chunks(file, list(SAMPLE_COLUMNS)):
                table = check_columns(table, where, SAMPLE_COLUMNS)
                user = to_numpy(table[USER])
                begin = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
                users.append(user[begin])
                begins.append(begin + done)
                items.write(to_numpy(table[ITEM]).data)
                labels.write(_clicks(Jagged.from_arrow(table[LABEL], where), where).data)
                done += len(user)
                bar.update(len(user))
    user, begin = np.concatenate(users), np.concatenate(begins)
    changes = np.concatenate([[True], user[1:] != user[:-1]])[: len(user)]
    return user[changes], np.append(begin[changes], done)


def _clicks(one_hot: Jagged, where: str) -> np.ndarray:
    """[no click, click] to int8, 1 for a click."""
    if not np.all(one_hot.lengths == 2):
        got = one_hot.lengths[one_hot.lengths != 2][0]
        raise InputError(f"{where} column {LABEL} must hold lists of 2, got one of {got}")
    pairs = one_hot.values.reshape(-1, 2)
    wrong = (np.sort(pairs, axis=1) != [0, 1]).any(axis=1)
    if wrong.any():
        rule = f"{where} column {LABEL} must be [1, 0] or [0, 1]"
        raise InputError(f"{rule}, got {pairs[wrong][0].tolist()}")
    return np.ascontiguousarray(pairs[:, 1])


def _map(path: Path, dtype: type, length: int) -> np.ndarray:
    return np.memmap(path, dtype, "r", shape=(length,)) if length else np.empty(0, dtype)
