"""Times are whole seconds since 1970: what every column of times is checked for.

A log in milliseconds would lose its labels without a word, as no click comes within half an hour
of its impression; an item created in milliseconds would be younger than any request.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.errors import InputError

LIMIT = 10**10  # the years 1653 to 2286; milliseconds pass it in April 1970
NOWADAYS = 5 * 10**8, LIMIT  # 1985 to 2286: what a time must be as another unit to be taken for it
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
THREE_YEARS = 10**8  # seconds; times in minutes, hours or days since 1970 are fewer


def check_seconds(where: Path | str, column: str, times: pa.Array | pa.ChunkedArray) -> None:
    """Refuse times that cannot be seconds since 1970.

    Small ones pass, whatever their clock begins with, and so do those before 1970.

    Args:
        where: names their file in the complaint. column: their name.
        times: int64, nulls allowed.

    Raises:
        InputError: one is not between -10^10 and 10^10.
    """
    least, greatest = pc.min_max(times).as_py().values()
    if least is None or -LIMIT < least <= greatest < LIMIT:
        return
    value = greatest if greatest >= LIMIT else least
    rule = f"{where} column {column} must be seconds since 1970, between -{LIMIT} and {LIMIT}"
    raise InputError(f"{rule}, got {value}{_unit_of(value)}")


def check_one_clock(where: Path | str, created_at: np.ndarray, first: int, last: int) -> None:
    """Refuse creation times of items that are of another clock, or unit, than those of requests.

    Args:
        where: names the items in the complaint. created_at: (N,) int64, of those known.
        first, last: times of the first and the last request.

    Raises:
        InputError: every item was created after the last request; or all in the first three years
            after 1970, as times in minutes, hours or days are, where requests are of our days.
    """
    if len(created_at) == 0:
        return
    least, greatest = created_at.min(), created_at.max()
    too_small = 0 <= least and greatest < THREE_YEARS and first >= NOWADAYS[0]
    if least > last or too_small:
        raise InputError(
            f"{where} column created_at must be on the clock of the requests' timestamp, in "
            f"seconds, got {least} to {greatest} where requests are of {first} to {last}"
        )


def _unit_of(value: int) -> str:
    for unit, in_a_second in UNITS.items():
        if NOWADAYS[0] <= value // in_a_second < NOWADAYS[1]:
            return f", which looks like {unit}: divide by {in_a_second}"
    return ""
