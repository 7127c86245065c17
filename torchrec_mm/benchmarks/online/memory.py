"""The memory of a process, looked at now and then while it works."""

import threading
import time
from pathlib import Path

import numpy as np

EVERY_S = 0.5


class Watched:
    """A process whose resident memory is looked at, in a ``with`` block."""

    def __init__(self, pid: int) -> None:
        """``pid``: of a process on this machine, which is alive for as long as the block runs."""
        self._status = Path(f"/proc/{pid}/status")
        self._seen: list[tuple[float, int]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join()

    def mean_mb(self, start: float, stop: float) -> float:
        """Mean between two times of ``time.time``, in MB; NaN if there was no look."""
        found = [size for when, size in self._seen if start <= when <= stop]
        return float(np.mean(found)) / 1e6 if found else float("nan")

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            self._seen.append((time.time(), resident_bytes(self._status)))


def resident_bytes(status: Path) -> int:
    """Of a file /proc/PID/status."""
    lines = status.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
