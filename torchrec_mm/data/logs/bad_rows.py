"""Bad rows of a log: how many there may be, and what is said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.data.logs import forms
from torchrec_mm.data.logs.log_format import ID_COLUMNS
from torchrec_mm.errors import InputError

# Reasons why ids of a CSV file are bad that others in it are not.
_MIXED = {
    name: {forms.reason(name, form) for form in (forms.DIGITS, forms.WORDS)} for name in ID_COLUMNS
}
LONGEST = 60  # characters of a value that are shown


@dataclass(frozen=True)
class BadRows:
    """Rows that are bad for one reason.

    reason: such as "item_id is null". where: file and row of the first. value: what it has there.
    """

    reason: str
    rows: int
    where: str
    value: str | None

    def __str__(self) -> str:
        shown = "" if self.value is None else f": {self.value[:LONGEST]!r}"
        return f"{self.rows} where {self.reason} ({self.where}{shown})"


def merged(found: Sequence[BadRows]) -> list[BadRows]:
    """One for each reason, where the first of them says; in the order in which they are met."""
    by_reason: dict[str, BadRows] = {}
    for bad in found:
        first = by_reason.get(bad.reason, BadRows(bad.reason, 0, bad.where, bad.value))
        by_reason[bad.reason] = BadRows(bad.reason, first.rows + bad.rows, first.where, first.value)
    return list(by_reason.values())


def check_bad_rows(folder: Path, bad: Sequence[BadRows], rows: int, bad_share: float) -> None:
    """Refuse a log with more bad rows than a share of all, with the first of each kind."""
    count = sum(each.rows for each in bad)
    if count > bad_share * rows:
        rule = f"{folder} must hold at most bad_share = {bad_share:g} bad rows"
        rule += f", got {count} of {rows}: {'; '.join(map(str, bad))}"
        mixed = (name for name in ID_COLUMNS for each in bad if each.reason in _MIXED[name])
        if name := next(mixed, None):
            rule += f"; where all of {name} is text, text_ids says so"
        raise InputError(rule)


def bad_row_notes(bad: Sequence[BadRows], rows: int) -> list[str]:
    """One line, or none."""
    if not bad:
        return []
    count = sum(each.rows for each in bad)
    return [f"{count} of {rows} rows are bad and left out: {'; '.join(map(str, bad))}"]
