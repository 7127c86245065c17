"""apps.serve as a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.runs import ROOT

WAIT_S = 300


@contextmanager
def served(run_dir: Path, *more: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A process and where it listens."""
    command = [sys.executable, "-m", "apps.serve", "--run_dir", str(run_dir), "--port", "0", *more]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.communicate(timeout=WAIT_S)[1]
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()
