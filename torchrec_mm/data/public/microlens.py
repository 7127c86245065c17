"""MicroLens, micro-videos: which videos users commented on, titles and covers.

Ni et al., arXiv 2309.15379; https://github.com/westlake-repl/MicroLens and the readme.txt of
MicroLens-50k and -100k. ``*_pairs.csv``: user, item, timestamp in milliseconds, with that header;
ids are whole numbers. ``*_title*.csv``: item, then after the first comma the title, with or without
the header ``item,title``. ``*_covers/<item>.jpg``: pictures, where they are unpacked.

There are no impressions. A request is one comment, and its candidates are the video and
``negatives`` others, drawn evenly from all videos that the user never commented on, from one seed:
AUC tells a video that was chosen from any other, not from what was shown beside it. Candidates of a
request are in the order of their ids. Behaviours are the user's earlier videos, the latest
``test_share`` of each user's comments are for testing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.parquet import BINARY, INT64, STRING
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.prepare.behaviours import behaviours_before
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.sittings import latest_rows, request_table
from torchrec_mm.data.public.public_data import IS_TEST, PublicData, picture
from torchrec_mm.data.public.tables import Tables, csv_rows, find_one
from torchrec_mm.errors import InputError

PAIRS = {"user": "BIGINT", "item": "BIGINT", "timestamp": "BIGINT"}
SORTED = 'SELECT DISTINCT "user" AS user_id, "timestamp" // 1000 AS time, item FROM {} ORDER BY ALL'
ITEMS_A_PIECE = 500  # with a picture each


def read_microlens(
    folder: Path, tables: Tables, *, behaviours: int, test_share: float, negatives: int, seed: int
) -> PublicData:
    """``tables``: to sort with. ``behaviours``: of a request at most, the latest.

    Raises:
        InputError: a missing file, a line that is not as above, fewer than three times as many
            videos as ``negatives`` besides those of a user.
    """
    pairs = csv_rows([find_one(folder, "*pairs.csv")], PAIRS)
    titles = _titles(find_one(folder, "*title*.csv"))
    commented = [batch["item"].to_numpy() for batch in tables(f"SELECT DISTINCT item FROM {pairs}")]
    item_ids = np.unique(np.concatenate([*commented, np.array([*titles], np.int64)]))
    ordered = tables(SORTED.format(pairs))
    draw = Negatives(item_ids, negatives, np.random.default_rng(seed))
    covers = sorted(folder.glob("*covers"))
    return PublicData(
        _items(item_ids, titles, covers[0] if covers else None),
        _requests(ordered, draw, behaviours, test_share),
        no_click=f"{folder} has no pair",
    )


def _titles(file: Path) -> dict[int, str]:
    """By item; lines are cut at the first comma, as not all files quote those of the titles."""
    titles = {}
    with input_errors(file, "must be readable"), file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            item, _, title = line.rstrip("\r\n").partition(",")
            if number == 1 and item == "item":
                continue
            if not item.isdecimal():
                raise InputError(f"{file} line {number} must begin with an item and a comma")
            quoted = len(title) > 1 and title[0] == title[-1] == '"'
            titles[int(item)] = title[1:-1].replace('""', '"') if quoted else title
    return titles


def _items(item_ids: np.ndarray, titles: dict[int, str], covers: Path | None) -> Iterator[pa.Table]:
    for at in range(0, len(item_ids), ITEMS_A_PIECE):
        ids = item_ids[at : at + ITEMS_A_PIECE].tolist()
        columns = {"item_id": pa.array(ids, INT64)}
        columns["title"] = pa.array([titles.get(item) or None for item in ids], STRING)
        if covers:
            columns["image"] = pa.array([picture(covers / f"{item}.jpg") for item in ids], BINARY)
        yield pa.table(columns)


def _requests(
    ordered: Iterable[pa.RecordBatch], draw: "Negatives", behaviours: int, test_share: float
) -> Iterator[pa.Table]:
    for rows in whole_users(ordered):
        user, time, item = (rows[name].to_numpy() for name in ("user_id", "time", "item"))
        candidates = np.column_stack([item, draw(user, item)])
        order = np.argsort(candidates, axis=1)
        label = np.take_along_axis(candidates == item[:, None], order, axis=1)
        candidates = np.take_along_axis(candidates, order, axis=1)
        width = candidates.shape[1]
        begins = np.zeros(candidates.size, bool)
        begins[::width] = True
        past = behaviours_before(user, time, item, user, time, behaviours)
        each_user, each_time = np.repeat(user, width), np.repeat(time, width)
        values = candidates.reshape(-1), label.reshape(-1).astype(np.int8)
        table = request_table(begins, each_user, each_time, *values, past, features={})
        yield table.append_column(IS_TEST, pa.array(latest_rows(user, time, test_share)))


class Negatives:
    """Draws items that a user has nothing to do with."""

    def __init__(self, item_ids: np.ndarray, count: int, rng: np.random.Generator) -> None:
        """``item_ids``: (U,) int64 ascending. ``count``: a row."""
        self._item_ids, self._count, self._rng = item_ids, count, rng

    def __call__(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n, count) int64, different in each row; of rows, (n,) each, with all rows of a user."""
        num_items = len(self._item_ids)
        own, owner = np.unique(user, return_inverse=True)
        most = int(np.bincount(owner).max())
        if num_items < most + 3 * self._count:  # else drawing again would not end soon
            rule = "negatives must be at most a third of the videos that a user has nothing to do"
            raise InputError(f"{rule} with, got {self._count} of {num_items} and {most} of a user")
        taken = np.unique(owner * num_items + np.searchsorted(self._item_ids, item))
        drawn = np.full((len(user), self._count), -1, np.int64)
        wrong = drawn < 0
        while wrong.any():
            drawn[wrong] = self._rng.integers(num_items, size=int(wrong.sum()))
            order = np.argsort(drawn, axis=1, kind="stable")
            ascending = np.take_along_axis(drawn, order, axis=1)
            again = np.zeros_like(wrong)
            np.put_along_axis(again, order[:, 1:], ascending[:, 1:] == ascending[:, :-1], axis=1)
            wrong = again | np.isin(owner[:, None] * num_items + drawn, taken)
        return self._item_ids[drawn]
