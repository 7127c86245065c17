"""Point-in-time behaviours: what a user had clicked *before* a request, and nothing later.

The market and every adapter of logs go through ``behaviours_before``: one place to get time right.
"""

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import list_array, ragged_positions

PASSED = "passed_item_ids"  # a request's sequence of what was shown earlier and not clicked


def behaviours_before(
    click_user: np.ndarray,
    click_time: np.ndarray,
    click_item: np.ndarray,
    request_user: np.ndarray,
    request_time: np.ndarray,
    limit: int,
) -> pa.ListArray:
    """The last ``limit`` items each request's user clicked strictly before the request.

    Args:
        click_user: (C,) int64, in any order.
        click_time: (C,) int64; clicks of one user at one time keep their order.
        click_item: (C,) int64.
        request_user: (R,) int64, in any order.
        request_time: (R,) int64.
        limit: behaviours a request at most, positive.

    Returns:
        (R,) list<int64>, oldest first; empty where the user had not clicked yet.
    """
    order = np.lexsort((click_time, click_user))
    begin, lengths = behaviour_ranges(
        click_user[order], click_time[order], request_user, request_time, limit
    )
    return list_array(click_item[order][ragged_positions(begin, lengths)], lengths)


def behaviour_ranges(
    click_user: np.ndarray,
    click_time: np.ndarray,
    request_user: np.ndarray,
    request_time: np.ndarray,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the behaviours of each request lie among clicks sorted by user and time.

    Arguments as in ``behaviours_before``, the clicks sorted.

    Returns:
        (R,) int64 position of the oldest behaviour, and (R,) int64 number of behaviours.
    """
    first = np.searchsorted(click_user, request_user)
    end = count_before(click_user, click_time, request_user, request_time)
    begin = np.maximum(first, end - limit)
    return begin, end - begin


def count_before(
    click_user: np.ndarray,
    click_time: np.ndarray,
    request_user: np.ndarray,
    request_time: np.ndarray,
) -> np.ndarray:
    """How many clicks sort strictly before each request by (user, time).

    All int64: clicks (C,), requests (R,), each in any order.

    Returns:
        (R,) int64; where clicks are sorted by user and time, the position of the first click of
        the request's user at or after the request, if there is one.
    """
    is_click = np.concatenate([np.zeros(len(request_user)), np.ones(len(click_user))])
    order = np.lexsort(
        (
            is_click,  # at the same second the request comes first, so the click is not before it
            np.concatenate([request_time, click_time]),
            np.concatenate([request_user, click_user]),
        )
    )
    clicks_so_far = np.cumsum(is_click[order]).astype(np.int64)
    counts = np.empty_like(clicks_so_far)
    counts[order] = clicks_so_far
    return counts[: len(request_user)]
