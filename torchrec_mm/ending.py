"""How a command ends where the code is right and the machine is not: a full disk, an odd locale."""

import errno
import os
import re
import sys
from collections.abc import Iterator

from torchrec_mm.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a machine runs into, not code.
MACHINE = (*FULL, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
# In the words of libraries that keep no errno: Arrow's and Rust's; Java's and torch's; NumPy's of a
# short write.
NUMBER = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
WORDS = {os.strerror(number): number for number in FULL}
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def print_anything() -> None:
    r"""Have stdout and stderr escape what the locale's encoding lacks, ``\u8d64``, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a notebook puts in their place
            stream.reconfigure(errors="backslashreplace")


def in_one_line(error: BaseException) -> tuple[int, str] | None:
    """Exit status and what happened, with the path where known; None for all that is our bug.

    A full disk may have broken a reader, whose InputError then is not the user's mistake.
    """
    if isinstance(error, UnicodeEncodeError):  # of a file that was found in a folder, say
        return 2, f"names must be UTF-8, got {error.object!a}: set PYTHONUTF8=1 if it is"
    for cause in _causes(error):
        if not isinstance(cause, InputError) and _number(cause) in FULL:
            return 1, _what_happened(cause)
    if not isinstance(error, InputError) and _number(error) in MACHINE:
        return 1, _what_happened(error)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int:
    """That of what the machine refused, 0 if it was nothing of the kind."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    words = str(error)
    if found := NUMBER.search(words):
        return int(found[1] or found[2])
    if SHORT_WRITE.search(words):
        return errno.ENOSPC
    return next((number for told, number in WORDS.items() if told in words), 0)


def _what_happened(error: BaseException) -> str:
    told = os.strerror(_number(error))
    if path := getattr(error, "filename", None):
        return f"{path}: {told}"
    # Java's errors are a hundred lines, of which one tells what happened.
    lines = [line for line in str(error).splitlines() if told in line] or [str(error)]
    return f"{told}: {' '.join(lines[0].split())}"
