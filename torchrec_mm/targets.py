"""Whether what a command is asked to make can be made: tried before the work, not after it.

Nothing stays of what is tried. Modes and owners are not looked at: they tell root nothing, and
nobody of a read-only disk, a quota or a mount.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torchrec_mm.errors import InputError
from torchrec_mm.files import beside, real, refuse_existing

LONGEST_KIND = "encoded"  # of what lies beside, and is itself written aside


def check_new_folder(path: Path, flag: str, reads: Iterable[Path | None] = ()) -> None:
    """For a folder that appears by a new name: it must be new or empty, and can be put there.

    Args:
        path: as the user gave it. flag: its name.
        reads: folders and files that the command reads; ``path`` must not lie in one.

    Raises:
        InputError: exists and holds something, cannot be made, or cannot be replaced: a mount.
    """
    with _told(path, flag):
        _check_way(path, flag, reads)
        refuse_existing(path)
        _try_beside(path, flag)
        if path.is_dir():
            _try_to_replace(path, flag)


def check_working_folder(
    path: Path, flag: str, reads: Iterable[Path | None] = (), asides: bool = False
) -> None:
    """For a folder that is worked in, whatever it holds; arguments as above.

    ``asides``: the command works beside it, too.

    Raises:
        InputError: cannot be made or written to.
    """
    with _told(path, flag):
        _check_way(path, flag, reads)
        if asides or not path.exists():
            _try_beside(path, flag)
        if path.exists():
            tempfile.TemporaryDirectory(dir=path, prefix=".").cleanup()


def check_file(path: Path, flag: str, reads: Iterable[Path | None] = ()) -> None:
    """A file to make or replace, arguments as above; InputError for a folder, device, mount."""
    with _told(path, flag):
        _check_way(path, flag, reads)
        if path.is_dir():
            raise InputError(f"{flag} must be a file, not a folder, got {path}")
        if path.exists() and (not path.is_file() or _is_mounted(real(path))):
            raise InputError(f"{flag} must be a file that can be replaced, got {path}")
        _try_beside(path, flag)


@contextmanager
def _told(path: Path, flag: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        rule = f"{flag} must be a place that can be written to"
        raise InputError(f"{rule}, got {path}: {error.strerror}") from error


def _check_way(path: Path, flag: str, reads: Iterable[Path | None]) -> None:
    """Refuse a path that leads nowhere, or to where the command reads."""
    for step in (path.absolute(), *path.absolute().parents):
        if (step.is_symlink() or step.name == "..") and not step.exists():
            named = f", which names {os.readlink(step)}" if step.is_symlink() else ""
            raise InputError(f"{flag} must not lead over what is not there, {step}{named}")
    target = real(path)
    for read in filter(None, reads):
        if real(read) in (target, *target.parents):
            raise InputError(f"{flag} must not lie in what is read, {read}, got {path}")


def _try_beside(path: Path, flag: str) -> None:
    """Make, and remove, what a command needs on its way: the folders above, and names beside.

    All below a folder of its own, so that processes that make neighbours do not meet.
    """
    target = real(path)
    if path.name in ("", "..") or target == Path.cwd():
        raise InputError(f"{flag} must be a name in some folder, got {str(path)!r}")
    above = next(folder for folder in target.parents if folder.exists())
    with tempfile.TemporaryDirectory(dir=above, prefix=".") as probe:
        way = Path(probe, target.parent.relative_to(above))
        way.mkdir(parents=True, exist_ok=True)
        aside = beside(way / target.name, LONGEST_KIND)
        Path(tempfile.mkdtemp(dir=way, prefix=f".{aside.name}."), "file").write_bytes(b"1")


def _try_to_replace(folder: Path, flag: str) -> None:
    """Move an empty folder away and back: a mount, or another's in a shared folder, stays."""
    target = real(folder)
    away = Path(tempfile.mkdtemp(dir=target.parent, prefix="."))
    try:
        target.replace(away)
        away.replace(target)
    except OSError as error:
        rule = f"{flag} must be a folder that can be replaced by a whole one, got {folder}"
        raise InputError(f"{rule}: {error.strerror}; name a new folder inside it") from error
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _is_mounted(file: Path) -> bool:
    """Whether a file is a mount of its own, as containers have them."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return False
    octal = re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", str(file))
    lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return any(line.split(" ")[4] == octal for line in lines)
