"""A folder for what a long command needs on the way: spilled rows, output that is not whole yet."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchrec_mm.errors import InputError
from torchrec_mm.files import beside


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
