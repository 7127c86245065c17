"""How a command ends where the code is right and the machine is not: a full disk, an odd locale."""

import errno
import os
import re
import sys

# What a machine runs into, not code.
MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
# In the words of Arrow and of Rust, whose exceptions are not all of OSError.
NUMBER = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)


def print_anything() -> None:
    r"""Have stdout and stderr escape what the locale's encoding lacks, ``\u8d64``, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a notebook puts in their place
            stream.reconfigure(errors="backslashreplace")


def in_one_line(error: BaseException) -> tuple[int, str] | None:
    """Exit status and what happened, with the path where known; None for all that is our bug."""
    if isinstance(error, UnicodeEncodeError):  # of a file that was found in a folder, say
        return 2, f"names must be UTF-8, got {error.object!a}: set PYTHONUTF8=1 if it is"
    number = _number(error)
    if number not in MACHINE:
        return None
    path = getattr(error, "filename", None)
    return 1, f"{path}: {os.strerror(number)}" if path else os.strerror(number)


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else None
