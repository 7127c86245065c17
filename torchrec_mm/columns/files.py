"""Which files of a folder are its tables: one answer for every reader.

Names that begin with ``.`` or ``_`` are hidden: what systems leave there (``._a.parquet``,
``_SUCCESS``) and what people put aside. Every other entry is a table of one kind or is refused by
name: no file is left out in silence, none is counted twice.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from torchrec_mm.errors import InputError

PARQUET = ".parquet"
CSV, JSON_LINES = "CSV", "JSON lines"
TEXT = {".csv": CSV, ".tsv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
# What a file holds, by the ending of its name.
WORDS = {PARQUET: "Parquet"} | {
    ending + packed: kind for ending, kind in TEXT.items() for packed in ("", ".gz", ".zst")
}
LOGS = tuple(WORDS)
PICTURES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"),
}
TABLES = {
    *(PARQUET, ".parq", ".pq", *TEXT),
    *(".arrow", ".feather", ".ipc", ".orc", ".avro"),
}
LOOKED_AT = 1000  # entries of a folder of pictures, of which there may be millions


def nothing(entry: os.DirEntry) -> bool:
    """No entry may lie beside tables."""
    return False


def pictures(entry: os.DirEntry) -> bool:
    """Pictures, and folders of them, may lie beside the tables that name them."""
    if not entry.is_dir():
        return Path(entry.name).suffix.lower() in PICTURES
    return not any(map(_holds_rows, (entry, *islice(_below(entry.path), LOOKED_AT))))


def data_files(
    folder: Path,
    kinds: tuple[str, ...] = (PARQUET,),
    beside: Callable[[os.DirEntry], bool] = nothing,
) -> list[Path]:
    """The files of the tables in ``folder``, in name order; they are of one kind.

    Args:
        folder: looked at one level deep.
        kinds: endings of WORDS, exactly as names must have them.
        beside: says of an entry whether it may lie there although it is no table.

    Raises:
        InputError: no such folder, not a table in it, tables of two kinds, one file under two
            names, or any other entry that is not hidden: a folder, a broken link, another suffix.
    """
    wanted, words = _wanted(kinds), " or ".join(dict.fromkeys(WORDS[kind] for kind in kinds))
    try:
        names = _distinct(folder, kinds, beside)
    except FileNotFoundError as error:
        raise InputError(f"{folder} must be a folder of {words} files: no such folder") from error
    except OSError as error:
        raise InputError(f"{folder} must be a folder of {words} files: {error}") from error
    if not names:
        raise InputError(f"{folder} must hold at least one {wanted} file, found none")
    check_one_kind(folder, [folder / name for name in names])
    return [folder / name for name in names]


def check_one_kind(folder: Path, files: Sequence[Path]) -> str:
    """What all the files hold, a value of WORDS; InputError naming two that differ."""
    for file in files:
        if kind_of(file) != kind_of(files[0]):
            rule = f"{folder} must hold files of one kind"
            pair = (each.relative_to(folder) for each in (files[0], file))
            raise InputError(f"{rule}, got {' and '.join(map(str, pair))}")
    return kind_of(files[0])


def kind_of(file: Path) -> str:
    """What a file of ``data_files`` holds, by its name."""
    return next(kind for ending, kind in WORDS.items() if file.name.endswith(ending))


def _wanted(kinds: tuple[str, ...]) -> str:
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _distinct(
    folder: Path, kinds: tuple[str, ...], beside: Callable[[os.DirEntry], bool]
) -> list[str]:
    """Names of the tables, sorted."""
    with os.scandir(folder) as entries:
        counted = [entry for entry in entries if not _is_hidden(entry) and not beside(entry)]
    names: dict[tuple[int, int], str] = {}
    for entry in sorted(counted, key=lambda entry: entry.name):
        fault = _fault(entry, kinds)
        if fault:
            rule = f"{folder} must hold {_wanted(kinds)} files only"
            raise InputError(f"{rule}, got {entry.name}: {fault}")
        status = entry.stat()
        other = names.setdefault((status.st_dev, status.st_ino), entry.name)
        if other != entry.name:
            rule = f"{folder} must hold each file once"
            raise InputError(f"{rule}, got {other} and {entry.name}, which are one")
    return list(names.values())


def _fault(entry: os.DirEntry, kinds: tuple[str, ...]) -> str:
    """Why an entry is no table; empty if it is one."""
    if entry.is_dir():
        return "it is a folder, and only one level is read"
    if not entry.name.endswith(kinds):
        return "convert it, move it elsewhere or let its name begin with _"
    if not entry.is_file():
        return "it is a link to nothing, or no regular file"
    return ""


def _is_hidden(entry: os.DirEntry) -> bool:
    return entry.name.startswith((".", "_"))


def _below(folder: str) -> Iterator[os.DirEntry]:
    """What is below and not hidden; links to folders are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_hidden(entry):
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)


def _holds_rows(entry: os.DirEntry) -> bool:
    """Whether its name is a table's, or a partition's like ``day=1``."""
    endings = {suffix.lower() for suffix in Path(entry.name).suffixes}
    return not TABLES.isdisjoint(endings) or ("=" in entry.name and entry.is_dir())
