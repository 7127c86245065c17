"""Outputs appear whole: written aside or in a scratch folder, flushed, renamed into place."""

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchrec_mm.errors import InputError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place when the block succeeds.

    Replaces an existing file in one step; of a link, the file that it names. When the block raises,
    nothing is left behind.
    """
    path = real(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        flush(aside)
        put(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it into place when the block succeeds.

    Raises:
        InputError: ``path`` exists and is not an empty folder, or a link to one.
    """
    refuse_existing(path)
    path = real(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        aside.chmod(0o755)
        for entry in (aside, *aside.rglob("*")):
            flush(entry)
        put(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def put(made: Path, path: Path) -> None:
    """Rename what was made, flushed to disk, to its place; over a file or an empty folder.

    Raises:
        InputError: the place is not free any more; says where what was made lies instead.
    """
    try:
        made.replace(path)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}."), path.name)
        made.replace(kept)
        rule = f"{path} could not be replaced"
        raise InputError(f"{rule}: {error.strerror}; what was made is in {kept}") from error
    flush(path.parent)


def real(path: Path) -> Path:
    """Where a path leads, links followed; it need not exist. What lies beside it is on its disk."""
    return Path(os.path.realpath(path))


def beside(path: Path, kind: str) -> Path:
    """``.NAME.KIND`` beside a path, for what a command needs on its way to it."""
    path = real(path)
    return path.with_name(f".{path.name}.{kind}")


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of ``new_file`` and ``new_folder`` in ``folder``.

    Args:
        folder: need not exist. name: of what they were to make there, anything if empty.
    """
    for path in folder.glob(f".{glob.escape(name) or '*'}.????????"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def refuse_existing(path: Path) -> None:
    """Raise InputError if ``path`` holds anything already."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists already: name a new folder or remove it first")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write ``value`` as JSON, whole or not at all. NaN is refused."""
    with new_file(path) as aside:
        text = json.dumps(value, indent=indent, allow_nan=False)
        aside.write_text(f"{text}\n", encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def scratch_folder(run_dir: Path) -> Iterator[Path]:
    """Yield an empty folder ``.NAME.scratch`` beside ``run_dir``, gone when the block ends.

    What a killed process left in it is removed first.

    Raises:
        InputError: another process is at work on the same ``run_dir``.
    """
    scratch = beside(run_dir, "scratch")
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            rule = "run_dir must not be in use"
            raise InputError(f"{rule}, got {run_dir}: another process is making it") from error
        inside = scratch / "files"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        try:
            yield inside
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
