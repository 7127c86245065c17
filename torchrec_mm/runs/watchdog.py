"""Says where training hangs."""

import faulthandler
import sys
import time
from typing import TextIO

SLACK = 0.1  # of the timeout: how much later than promised it may fire


class Watchdog:
    """Prints the Python stacks of all threads when nothing was heard for too long. A context.

    The waiting thread is faulthandler's, in C: it prints even if the interpreter is stuck. One
    watchdog a process; training goes on if the hang ends, and a later hang is reported again.
    """

    def __init__(self, timeout_s: float, stream: TextIO | None = None) -> None:
        """Wait to be entered.

        Args:
            timeout_s: silence that counts as a hang; 0 never does.
            stream: where to print, with a file descriptor; stderr, if there is one, if None.
        """
        self.timeout_s = timeout_s
        self.stream = stream or sys.__stderr__
        self._armed_at = float("-inf")

    def alive(self) -> None:
        """A step is done; costs one look at the clock."""
        now = time.monotonic()
        if self.timeout_s and self.stream and now - self._armed_at >= SLACK * self.timeout_s:
            self._armed_at = now
            after = (1 + SLACK) * self.timeout_s
            faulthandler.dump_traceback_later(after, file=self.stream)

    def __enter__(self) -> "Watchdog":
        self._armed_at = float("-inf")
        self.alive()
        return self

    def __exit__(self, *_: object) -> None:
        if self.timeout_s:
            faulthandler.cancel_dump_traceback_later()
