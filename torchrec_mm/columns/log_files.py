"""The files of a log: one folder, or folders of partitions like ``day=2026-01-01/hour=3``.

A partition is a column whose value a folder's name holds, as Hive, Spark and others write them. Its
values are text, ``%2F`` and the like decoded; ``__HIVE_DEFAULT_PARTITION__`` is null.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from torchrec_mm.columns.files import LOGS, check_one_kind, data_files, kind_of
from torchrec_mm.errors import InputError

NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class LogFile:
    """A file, and the columns that the names of its folders hold, by name."""

    path: Path
    partitions: dict[str, str | None] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Parquet, CSV or JSON lines."""
        return kind_of(self.path)


def log_files(folder: Path) -> list[LogFile]:
    """The files of a log, folder by folder, in name order.

    Raises:
        InputError: what ``data_files`` refuses, at any depth; files of two kinds; partitions of
            different columns.
    """
    files = list(_files_in(folder, {}))
    check_one_kind(folder, [file.path for file in files])
    for file in files:
        if file.partitions.keys() != files[0].partitions.keys():
            first, other = (each.path.relative_to(folder) for each in (files[0], file))
            rule = f"{folder} must hold files in partitions of the same columns"
            raise InputError(f"{rule}, got {first} and {other}")
    return files


def _files_in(folder: Path, partitions: dict[str, str | None]) -> Iterator[LogFile]:
    below = _partitions_of(folder)
    if not below or _holds_others(folder):
        for path in data_files(folder, LOGS, beside=_is_partition):
            yield LogFile(path, partitions)
    for path in below:
        name, _, value = path.name.partition("=")
        if name in partitions:
            raise InputError(f"{path} must name a column that no folder above it names, got {name}")
        yield from _files_in(path, partitions | {name: None if value == NULL else unquote(value)})


def _partitions_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []  # data_files says so
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_partition(entry))


def _holds_others(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(not _is_partition(e) and not e.name.startswith((".", "_")) for e in entries)


def _is_partition(entry: os.DirEntry) -> bool:
    """A folder called ``column=value`` that is not hidden."""
    name, equals, _ = entry.name.partition("=")
    return bool(equals and name) and not name.startswith((".", "_")) and entry.is_dir()
