"""Row-per-impression data as requests.

Columns: user_id, item_id, label; timestamp, behaviour_item_ids and weight where known; any further
one is a feature of the request or of the impression (further.py). impression_rows.py reads them.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import Jagged, list_array
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.data.logs.id_maps import read_item_texts
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.prepare.behaviours import PASSED, behaviours_before
from torchrec_mm.data.prepare.further import (
    codes,
    feature_columns,
    names_of_impressions,
    weight_lists,
)
from torchrec_mm.data.prepare.impression_rows import LISTS, NAMED, WEIGHT, read_impressions
from torchrec_mm.data.prepare.prepared import Prepared, given_settings, items_for
from torchrec_mm.data.prepare.repeated_rows import first_of_equal, list_changes
from torchrec_mm.data.prepare.sittings import changes, latest_rows, request_table
from torchrec_mm.errors import InputError


def prepare_impressions(
    folder: Path,
    items: Path | None,
    *,
    behaviours: int,
    passed: bool = False,
    test_share: float,
    log_format: LogFormat,
    scratch: Path,
) -> Prepared:
    """Read a folder of files, one row an impression; ``scratch``: folder to make, for copies.

    With a timestamp, the rows of one user at one time are a request, and the latest
    ``test_share`` of each user's rows are for testing. Without, neighbouring rows of one user with
    equal behaviours are a request, and the last ``test_share`` of all requests are for testing.
    Behaviours not given are the user's earlier clicks; then a timestamp is needed. Rows that are
    equal in every column count once. With ``passed``, requests have what their user was shown
    earlier and did not click, as many as behaviours at most. A further column with one value a
    request is of the request, another one of the impression, see ``names_of_impressions``.

    Raises:
        InputError: what ``read_impressions`` and ``names_of_impressions`` refuse, behaviours that
            differ inside a request, an item with two labels at one time of a user, a weight below
            0, items of another clock; with ``passed``, no timestamp, or the column already.
    """
    rows = read_impressions(folder, log_format)
    columns, given, further, equal = _distinct(rows.table, folder)
    repeated = rows.table.num_rows - len(columns["user_id"])
    user, item, label = (columns[name] for name in ("user_id", "item_id", "label"))
    time = columns.get("timestamp")
    if time is not None:
        begins = changes(user) | changes(time)
    else:
        assert given is not None  # read_impressions wants one of the two
        begins = changes(user) | list_changes(given)
    first = np.flatnonzero(begins)
    if given is not None:
        _check_one_sequence(folder, begins, given)
    if time is not None:
        _check_one_label(folder, begins, item)
    if given is None:
        assert time is not None
        clicked = label == 1
        lists = behaviours_before(
            user[clicked], time[clicked], item[clicked], user[first], time[first], behaviours
        )
        lengths = np.full(len(first), -1)  # no list is as long
    else:
        of_first = given.take(first)[0]
        newest, lengths = of_first.newest(behaviours)[0], of_first.lengths
        lists = list_array(newest.values, newest.lengths)
    requests = request_table(begins, user, time, item, label, lists, features={})
    if passed:
        if time is None:
            raise InputError(f"{folder} must have a column timestamp, which passed needs, got none")
        if PASSED in further.column_names:
            raise InputError(f"{folder} column {PASSED} must be left out with passed, got both")
        other = label == 0
        earlier = behaviours_before(
            user[other], time[other], item[other], user[first], time[first], behaviours
        )
        requests = requests.append_column(PASSED, earlier)
    if WEIGHT in further.column_names:
        weights = weight_lists(folder, further[WEIGHT], np.diff(first, append=len(user)))
        requests = requests.append_column("weights", weights)
        further = further.drop_columns(WEIGHT)
    names = names_of_impressions(folder, begins, further, equal)
    features = feature_columns(further, begins, names, lengths, behaviours)
    for name, values in features.items():
        requests = requests.append_column(name, values)
    if time is not None:
        is_test = latest_rows(user, time, test_share)[first]
    else:
        is_test = np.arange(len(first)) >= np.ceil(len(first) * (1 - test_share) - 1e-9)
    texts = dict(rows.texts)
    items_to_write = items_for(requests, items, texts.get("item_id"), scratch)
    if "item_id" in texts and items is not None:
        texts["item_id"] = [*texts["item_id"], *read_item_texts(scratch)]
    again = (f"{repeated} rows are equal to another one, and count once",) * bool(repeated)
    renamed = (
        f"column {name} differs inside requests: it is {called}, a feature of the impression"
        for name, called in names.items()
        if name != called
    )
    return Prepared(
        items_to_write,
        requests.filter(pa.array(~is_test)),
        requests.filter(pa.array(is_test)),
        no_click=f"{folder} column label is 0 in every row",
        notes=(*rows.notes, *renamed, *again),
        texts=texts,
        settings=given_settings(items),
    )


def _distinct(
    table: pa.Table, folder: Path
) -> tuple[dict[str, np.ndarray], Jagged | None, pa.Table, dict[str, np.ndarray]]:
    """The columns of rows that differ; where times are known, by user and time.

    Returns:
        (n,) int64 by name of the named columns, behaviours apart; the behaviours of n rows if they
        are known; the further columns and weights, n rows; and ``codes`` of these.
    """
    lists = None
    if LISTS in table.column_names:
        lists = Jagged.from_arrow(table[LISTS], f"{folder} column {LISTS}")
    scalars = [name for name in table.column_names if name in NAMED and name not in (LISTS, WEIGHT)]
    columns = {name: table[name].to_numpy() for name in scalars}
    further = table.drop_columns([*scalars, *[LISTS] * (lists is not None)])
    equal = {name: codes(further[name]) for name in further.column_names}
    rows = first_of_equal([*columns.values(), *equal.values()], lists)
    if "timestamp" in columns:
        rows = rows[np.lexsort((columns["timestamp"][rows], columns["user_id"][rows]))]
    return (
        {name: values[rows] for name, values in columns.items()},
        None if lists is None else lists.take(rows)[0],
        further.take(to_arrow(rows)),
        {name: values[rows] for name, values in equal.items()},
    )


def _check_one_sequence(folder: Path, begins: np.ndarray, given: Jagged) -> None:
    """A request has one behaviour sequence."""
    differs = list_changes(given) & ~begins
    if differs.any():
        rule = f"{folder} column {LISTS} must have one value a request (one user at one time)"
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
