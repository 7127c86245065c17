"""Row-per-impression data as requests.

Columns: user_id, item_id, label; timestamp and behaviour_item_ids where known; any further int64
column is a user or context feature.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.data.behaviours import behaviours_before, list_array, ragged_positions
from torchrec_mm.data.jagged import Jagged
from torchrec_mm.data.parquet import INT64, INT64_LIST
from torchrec_mm.data.parquet_folder import ParquetFolder
from torchrec_mm.data.prepared import Prepared, items_for
from torchrec_mm.data.roles import further_columns
from torchrec_mm.data.sittings import changes, latest_rows, request_table
from torchrec_mm.errors import InputError

REQUIRED = ("user_id", "item_id", "label")
PAST = {"timestamp": INT64, "behaviour_item_ids": INT64_LIST}  # one of them at least
NAMED = frozenset({*REQUIRED, *PAST})


def prepare_impressions(
    folder: Path, items: Path | None, behaviours: int, test_share: float
) -> Prepared:
    """Read a folder of Parquet files, one row an impression.

    With a timestamp, the rows of one user at one time are a request, and the latest
    ``test_share`` of each user's rows are for testing. Without, neighbouring rows of one user with
    equal behaviours are a request, and the last ``test_share`` of all requests are for testing.
    Behaviours not given are the user's earlier clicks; then a timestamp is needed.

    Raises:
        InputError: missing folder or column, wrong type, null, label outside {0, 1}, neither
            timestamp nor behaviours, a feature or behaviours that differ inside a request.
    """
    table = _read(folder)
    has_time = "timestamp" in table.column_names
    if has_time:
        table = table.take(np.lexsort((table["timestamp"].to_numpy(), table["user_id"].to_numpy())))
    user, item, label = (table[name].to_numpy() for name in ("user_id", "item_id", "label"))
    time = table["timestamp"].to_numpy() if has_time else None
    given = None
    if "behaviour_item_ids" in table.column_names:
        given = Jagged.from_arrow(
            table["behaviour_item_ids"], f"{folder} column behaviour_item_ids"
        )
    begins = changes(user) | (changes(time) if time is not None else _list_changes(given))
    first = np.flatnonzero(begins)
    features = {name: table[name].to_numpy() for name in table.column_names if name not in NAMED}
    _check_constant(folder, begins, features, given)
    if given is None:
        clicked = label == 1
        lists = behaviours_before(
            user[clicked], time[clicked], item[clicked], user[first], time[first], behaviours
        )
    else:
        lists = _newest(given, first, behaviours)
    requests = request_table(begins, user, time, item, label, lists, features)
    if time is not None:
        is_test = latest_rows(user, time, test_share)[first]
    else:
        is_test = np.arange(len(first)) >= np.ceil(len(first) * (1 - test_share) - 1e-9)
    return Prepared(
        items_for(requests, items),
        requests.filter(pa.array(~is_test)),
        requests.filter(pa.array(is_test)),
    )


def _read(folder: Path) -> pa.Table:
    rows = ParquetFolder(folder)
    required = dict.fromkeys(REQUIRED, INT64) | further_columns([rows], NAMED, [INT64])
    known = {name: kind for name, kind in PAST.items() if name in rows.names}
    if not known:
        raise InputError(
            f"{folder} must have a column timestamp or behaviour_item_ids, got "
            f"{', '.join(rows.names)}"
        )
    table = rows.read(required | known)
    label = table["label"].to_numpy()
    wrong = label[(label != 0) & (label != 1)]
    if len(wrong):
        raise InputError(f"{folder} column label must be 0 or 1, got {wrong[0]}")
    return table


def _check_constant(
    folder: Path, begins: np.ndarray, features: dict[str, np.ndarray], given: Jagged | None
) -> None:
    """A request has one value of each feature and one behaviour sequence."""
    inside = {name: changes(values) & ~begins for name, values in features.items()}
    if given is not None:
        inside["behaviour_item_ids"] = _list_changes(given) & ~begins
    for name, differs in inside.items():
        if differs.any():
            raise InputError(
                f"{folder} column {name} must have one value a request (one user at one time), "
                f"got several in {differs.sum()} rows: leave the column out"
            )


def _newest(lists: Jagged, rows: np.ndarray, limit: int) -> pa.ListArray:
    lengths = np.minimum(lists.lengths[rows], limit)
    positions = ragged_positions(lists.offsets[rows + 1] - lengths, lengths)
    return list_array(lists.values[positions], lengths)


def _list_changes(lists: Jagged) -> np.ndarray:
    """Whether each list differs from the one before it: (R,) bool, the first does."""
    differ = changes(lists.lengths)
    same_length = np.flatnonzero(~differ)
    here, lengths = lists.positions(same_length)
    before, _ = lists.positions(same_length - 1)
    unequal = lists.values[here] != lists.values[before]
    differ[np.repeat(same_length, lengths)[unequal]] = True
    return differ
