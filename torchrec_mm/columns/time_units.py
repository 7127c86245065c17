"""Which unit whole numbers since 1970 are in: as the user says, or by their size, never both ways.

Sizes of our days (1985 to 2286) do not overlap: seconds have ten digits, milliseconds thirteen.
Numbers below are taken for seconds, whatever their clock begins with; those between are refused.
"""

from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.seconds import LIMIT, NOWADAYS, check_seconds
from torchrec_mm.errors import InputError

IN_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def unit_of(where: Path | str, column: str, least: int, greatest: int) -> str:
    """The unit of all times between two, a key of IN_A_SECOND.

    Args:
        where: names their file in the complaint. column: their name.
        least, greatest: int64, of the numbers as they are.

    Raises:
        InputError: they are of two units, or one is of none for sure.
    """
    units = {value: _unit(value) for value in (least, greatest)}
    for value, unit in units.items():
        if unit is None:
            raise InputError(
                f"timestamp_unit must be given, s, ms, us or ns, where {where} column {column} "
                f"holds {value}, which may be of two"
            )
    if len(set(units.values())) > 1:
        found = " and ".join(f"{value} ({WORDS[unit]})" for value, unit in units.items() if unit)
        raise InputError(f"{where} column {column} must be in one unit, got {found}")
    return units[least] or "s"


def check_range(where: Path | str, column: str, least: int, greatest: int, unit: str) -> None:
    """Refuse numbers that are in no unit such as this: see ``check_seconds``."""
    seconds = [value // IN_A_SECOND[unit] for value in (least, greatest)]
    check_seconds(where, column, pa.array(seconds, pa.int64()))


def told(least: int, greatest: int, unit: str) -> str:
    """``seconds since 1970, 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z``."""
    first, last = (_date(value // IN_A_SECOND[unit]) for value in (least, greatest))
    return f"{WORDS[unit]} since 1970, {first} to {last}"


def _unit(value: int) -> str | None:
    size = abs(value)
    if size < LIMIT:
        return "s"
    for unit in ("ms", "us", "ns"):
        if NOWADAYS[0] <= size // IN_A_SECOND[unit] < NOWADAYS[1]:
            return unit
    return None


def _date(seconds: int) -> str:
    date = datetime.fromtimestamp(seconds, timezone.utc)
    return date.isoformat().replace("+00:00", "Z")
