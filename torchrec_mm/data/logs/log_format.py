"""What a user says of the files of a log: names, delimiter, times, ids and how much may be bad."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torchrec_mm.errors import InputError

ID_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """How files are read.

    columns: names in the files by names of the contract, where they differ.
    delimiter: of CSV, one character; None: found by the header.
    timestamp_unit: of whole numbers, s, ms, us or ns; None: told by their size.
    text_ids: columns of CSV files that are text, though some of it may look like a number.
    bad_share: of the rows that may be bad, from 0 to below 1.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    timestamp_unit: str | None = None
    text_ids: Collection[str] = ()
    bad_share: float = 0.0

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter.encode()) != 1:
            raise InputError(f"delimiter must be one ASCII character, got {self.delimiter!r}")
        if not 0 <= self.bad_share < 1:
            raise InputError(f"bad_share must be at least 0 and below 1, got {self.bad_share}")
        for name in self.text_ids:
            if name not in ID_COLUMNS:
                rule = f"text_ids must be columns of {', '.join(ID_COLUMNS)}"
                raise InputError(f"{rule}, got {name}")
        for name, source in self.columns.items():
            if not source:
                raise InputError(f"columns must name a column of the files for {name}, got ''")

    def check_names(self, known: Collection[str]) -> None:
        """Refuse a name that the source does not know, and a column of the files under two."""
        for name in self.columns:
            if name not in known:
                raise InputError(f"columns must map some of {', '.join(known)}, got {name}")
        sources = [self.source(name) for name in known]
        for source in sources:
            if sources.count(source) > 1:
                raise InputError(f"columns must name a column of the files once, got {source}")

    def source(self, name: str) -> str:
        """What the files call a column of the contract."""
        return self.columns.get(name, name)
