"""Row-per-impression data as requests.

Columns: user_id, item_id, label; timestamp and behaviour_item_ids where known; any further int64
column is a user or context feature. impression_rows.py reads them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, list_array
from torchrec_mm.data.logs.id_maps import read_item_texts
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.prepare.behaviours import behaviours_before
from torchrec_mm.data.prepare.impression_rows import NAMED, read_impressions
from torchrec_mm.data.prepare.prepared import Prepared, items_for
from torchrec_mm.data.prepare.sittings import changes, latest_rows, request_table
from torchrec_mm.errors import InputError

ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def prepare_impressions(
    folder: Path,
    items: Path | None,
    *,
    behaviours: int,
    test_share: float,
    log_format: LogFormat,
    scratch: Path,
) -> Prepared:
    """Read a folder of files, one row an impression; ``scratch``: folder to make, for copies.

    With a timestamp, the rows of one user at one time are a request, and the latest
    ``test_share`` of each user's rows are for testing. Without, neighbouring rows of one user with
    equal behaviours are a request, and the last ``test_share`` of all requests are for testing.
    Behaviours not given are the user's earlier clicks; then a timestamp is needed. Rows that are
    equal in every column count once.

    Raises:
        InputError: what ``read_impressions`` refuses, a feature or behaviours that differ inside a
            request, an item with two labels at one time of a user, items of another clock.
    """
    rows = read_impressions(folder, log_format)
    columns, given = _distinct(rows.table, folder)
    repeated = rows.table.num_rows - len(columns["user_id"])
    user, item, label = (columns[name] for name in ("user_id", "item_id", "label"))
    time = columns.get("timestamp")
    if time is not None:
        begins = changes(user) | changes(time)
    else:
        assert given is not None  # read_impressions wants one of the two
        begins = changes(user) | list_changes(given)
    first = np.flatnonzero(begins)
    features = {name: values for name, values in columns.items() if name not in NAMED}
    _check_constant(folder, begins, features, given)
    if time is not None:
        _check_one_label(folder, begins, item)
    if given is None:
        assert time is not None
        clicked = label == 1
        lists = behaviours_before(
            user[clicked], time[clicked], item[clicked], user[first], time[first], behaviours
        )
    else:
        newest, _ = given.take(first)[0].newest(behaviours)
        lists = list_array(newest.values, newest.lengths)
    requests = request_table(begins, user, time, item, label, lists, features)
    if time is not None:
        is_test = latest_rows(user, time, test_share)[first]
    else:
        is_test = np.arange(len(first)) >= np.ceil(len(first) * (1 - test_share) - 1e-9)
    texts = dict(rows.texts)
    items_to_write = items_for(requests, items, texts.get("item_id"), scratch)
    if "item_id" in texts and items is not None:
        texts["item_id"] = [*texts["item_id"], *read_item_texts(scratch)]
    again = (f"{repeated} rows are equal to another one, and count once",) * bool(repeated)
    return Prepared(
        items_to_write,
        requests.filter(pa.array(~is_test)),
        requests.filter(pa.array(is_test)),
        no_click=f"{folder} column label is 0 in every row",
        notes=rows.notes + again,
        texts=texts,
    )


def _distinct(table: pa.Table, folder: Path) -> tuple[dict[str, np.ndarray], Jagged | None]:
    """The columns, behaviours apart, of rows that differ; where times are known, by user and time.

    Returns:
        (n,) int64 by name, and the behaviours of n rows if they are known.
    """
    lists, of_lists = None, "behaviour_item_ids"
    if of_lists in table.column_names:
        lists = Jagged.from_arrow(table[of_lists], f"{folder} column {of_lists}")
        table = table.drop_columns(of_lists)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    rows = first_of_equal(list(columns.values()), lists)
    if "timestamp" in columns:
        rows = rows[np.lexsort((columns["timestamp"][rows], columns["user_id"][rows]))]
    return (
        {name: values[rows] for name, values in columns.items()},
        None if lists is None else lists.take(rows)[0],
    )


def _check_constant(
    folder: Path, begins: np.ndarray, features: dict[str, np.ndarray], given: Jagged | None
) -> None:
    """A request has one value of each feature and one behaviour sequence."""
    inside = {name: changes(values) & ~begins for name, values in features.items()}
    if given is not None:
        inside["behaviour_item_ids"] = list_changes(given) & ~begins
    for name, differs in inside.items():
        if differs.any():
            rule = f"{folder} column {name} must have one value a request (one user at one time)"
            raise InputError(f"{rule}, got several in {differs.sum()} rows: leave the column out")


def _check_one_label(folder: Path, begins: np.ndarray, item: np.ndarray) -> None:
    """A request shows an item once; rows that repeat one are gone already."""
    request = np.cumsum(begins)
    order = np.lexsort((item, request))
    again = ~changes(request[order]) & ~changes(item[order])
    if again.any():
        raise InputError(
            f"{folder} column label must be one for each user, item and timestamp, got 0 and 1 for "
            f"{again.sum()} of them, item_id {item[order][again][0]} the first: keep one row"
        )


def first_of_equal(columns: Sequence[np.ndarray], lists: Jagged | None) -> np.ndarray:
    """The first of rows that are equal in every column.

    Args:
        columns: each (N,) of any dtype. lists: a further column, N lists.

    Returns:
        (n,) int64 rows, ascending.
    """
    keys = list(columns) if lists is None else [*columns, list_hashes(lists)]
    order = np.lexsort(keys)  # stable, so that the first of equal rows comes first
    differ = np.logical_or.reduce([changes(values[order]) for values in keys])
    if lists is not None and not differ.all():
        differ |= list_changes(lists.take(order)[0])
    return np.sort(order[differ])


def list_changes(lists: Jagged) -> np.ndarray:
    """Whether each list differs from the one before it: (R,) bool, the first does."""
    differ = changes(lists.lengths)
    same_length = np.flatnonzero(~differ)
    here, lengths = lists.positions(same_length)
    before, _ = lists.positions(same_length - 1)
    unequal = lists.values[here] != lists.values[before]
    differ[np.repeat(same_length, lengths)[unequal]] = True
    return differ


def list_hashes(lists: Jagged) -> np.ndarray:
    """(R,) uint64, equal for equal lists of int64, and nearly never for others."""
    place = np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lists.lengths)
    mixed = (lists.values.astype(np.uint64) + place.astype(np.uint64) * ODD[0]) * ODD[1]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * ODD[0]
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
    return sums[lists.offsets[1:]] - sums[lists.offsets[:-1]] + lists.lengths.astype(np.uint64)
