"""Rows of one user to requests: where a sitting ends, and which rows are for testing.

Every function takes rows sorted by user and then time; N rows.
"""

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import list_array


def changes(values: np.ndarray) -> np.ndarray:
    """Where ``values`` (N,) differs from the row before: (N,) bool, True in row 0."""
    differ = np.ones(len(values), dtype=bool)
    differ[1:] = values[1:] != values[:-1]
    return differ


def latest_rows(user: np.ndarray, time: np.ndarray, test_share: float) -> np.ndarray:
    """The rows of each user later than the user's first ``1 - test_share``: (N,) bool.

    Rows at the second of the last training row stay in training, so that every training row of a
    user is earlier than every test row of the same user.
    """
    first, lengths = _runs(changes(user))
    num_train = np.ceil(lengths * (1 - test_share) - 1e-9).astype(np.int64)
    last_train = time[first + np.maximum(num_train, 1) - 1]
    return time > np.repeat(last_train, lengths)


def cut_sittings(
    user: np.ndarray, time: np.ndarray, is_test: np.ndarray, *, pause_s: int, max_candidates: int
) -> np.ndarray:
    """Where requests begin: (N,) bool.

    A request ends at a pause longer than ``pause_s``, where testing begins, and after
    ``max_candidates`` rows: a longer sitting becomes several requests.
    """
    pause = np.diff(time, prepend=time[:1]) > pause_s
    begins = changes(user) | pause | np.diff(is_test, prepend=is_test[:1])
    first, lengths = _runs(begins)
    place = np.arange(len(user)) - np.repeat(first, lengths)
    return place % max_candidates == 0


def request_table(
    begins: np.ndarray,
    user: np.ndarray,
    time: np.ndarray | None,
    item: np.ndarray,
    label: np.ndarray,
    behaviours: pa.Array,
    features: dict[str, np.ndarray],
) -> pa.Table:
    """One row a request from one row an impression.

    Args:
        begins: (N,) bool, True where a request begins; R of them.
        user: (N,) int64.
        time: (N,) int64 seconds, or None; a request has the time of its first row.
        item: (N,) int64.
        label: (N,) 0 or 1.
        behaviours: (R,) list<int64>.
        features: further columns by name, each (N,) int64, the same all over a request.
    """
    first, lengths = _runs(begins)
    columns = {"user_id": user[first]}
    if time is not None:
        columns["timestamp"] = time[first]
    columns["behaviour_item_ids"] = behaviours
    columns["candidate_item_ids"] = list_array(item, lengths)
    columns["labels"] = list_array(label.astype(np.int8), lengths)
    return pa.table(columns | {name: values[first] for name, values in features.items()})


def _runs(begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each run."""
    first = np.flatnonzero(begins)
    return first, np.diff(first, append=len(begins))
