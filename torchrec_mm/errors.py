"""What may go wrong outside this program: the user's mistakes, and a disk that is full."""

import errno
import os
import re

FULL = (errno.ENOSPC, errno.EDQUOT)
# As libraries say it that keep no errno: Rust's and Java's, torch's, and NumPy's of a short write.
_FULL_IN_WORDS = re.compile(rf"{'|'.join(map(os.strerror, FULL))}|\d+ requested and \d+ written")


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a value in the data.

    The message is one line naming field, rule and value; commands print it and exit with status 2
    (see ``torchrec_mm.config.run``). Anything else that escapes is our bug and keeps its traceback.
    """


def full_disk(error: BaseException | None) -> BaseException | None:
    """An error, or what caused it, that tells of a full disk or quota; None if none does."""
    while error is not None:
        of_system = isinstance(error, OSError) and error.errno in FULL
        if of_system or (not isinstance(error, InputError) and _FULL_IN_WORDS.search(str(error))):
            return error
        error = error.__cause__ or error.__context__
    return None
