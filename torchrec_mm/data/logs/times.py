"""The times of a log, all rows together: which unit whole numbers are in, and what must be said."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.time_units import IN_A_SECOND, check_range, told, unit_of
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.errors import InputError


@dataclass(frozen=True)
class LogTimes:
    """Least and greatest time of the good rows.

    numbers: of whole numbers, in their unit; None where there are none. dates: of dates, in
    seconds; None where there are none. zoneless: dates without a zone.
    """

    numbers: tuple[int, int] | None = None
    dates: tuple[int, int] | None = None
    zoneless: int = 0

    @classmethod
    def of(cls, good: pa.Table) -> "LogTimes":
        """Of rows as ``forms.Typist`` gives them."""
        is_date, zoned = good["is_date"], pc.sum(good["is_zoned"]).as_py() or 0
        numbers = _range(good["timestamp"].filter(pc.invert(is_date)))
        return cls(numbers, _range(good["timestamp"].filter(is_date)), good.num_rows - zoned)

    def __add__(self, other: "LogTimes") -> "LogTimes":
        return LogTimes(
            _wider(self.numbers, other.numbers),
            _wider(self.dates, other.dates),
            self.zoneless + other.zoneless,
        )

    def unit(self, folder: Path, log_format: LogFormat) -> str:
        """Of the times: s, ms, us or ns; ``s`` of dates.

        Raises:
            InputError: whole numbers beside dates or of two units, or a unit given where there are
                dates or that their size cannot be.
        """
        where = f"{folder} column timestamp"
        if self.numbers and self.dates:
            numbers = f"such as {self.numbers[0]}"
            raise InputError(f"{where} must hold whole numbers or dates, got both, {numbers}")
        if self.numbers is None:
            if log_format.timestamp_unit:
                rule = f"timestamp_unit must be left out where {where} holds dates"
                raise InputError(f"{rule}, got {log_format.timestamp_unit}")
            return "s"
        unit = log_format.timestamp_unit or unit_of(folder, "timestamp", *self.numbers)
        check_range(folder, "timestamp", *self.numbers, unit)
        return unit

    def seconds(self, unit: str) -> tuple[int, int]:
        """The first and the last; 0 where there is no time at all."""
        least, greatest = self.numbers or self.dates or (0, 0)
        return least // IN_A_SECOND[unit], greatest // IN_A_SECOND[unit]

    def notes(self, log_format: LogFormat, unit: str) -> Iterator[str]:
        """A line on each thing that was found out."""
        if self.numbers and not log_format.timestamp_unit:
            taken = told(*self.numbers, unit)
            yield f"timestamp is taken for {taken}; --timestamp_unit says otherwise"
        if self.zoneless:
            yield f"timestamp has no zone in {self.zoneless} rows, which are taken for UTC"


def _range(times: pa.ChunkedArray) -> tuple[int, int] | None:
    least, greatest = pc.min_max(times).as_py().values()
    return None if least is None else (least, greatest)


def _wider(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])
