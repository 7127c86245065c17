"""SIGTERM, as pre-emption sends it: all ranks end after the same step, with everything saved."""

import os
import signal
import sys
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.parallel.process_group import host_group

STOPPED_BY_SIGTERM = 128 + signal.SIGTERM
NO_SIGNAL = 0


class Stopped(SystemExit):
    """Training was asked to end, and all ranks have agreed to: exit status 143, no traceback."""

    def __init__(self) -> None:
        super().__init__(STOPPED_BY_SIGTERM)


class Stop:
    """Hears SIGTERM on any rank and makes all of them stop at the same point. A context.

    After the signal the process has ``timeout_s`` seconds to end by itself; it is then ended
    whatever it does, a collective whose other ranks are gone included. More signals change nothing.
    Only a context of the main thread hears signals, as Python has it; another still stops with the
    other ranks.
    """

    def __init__(self, timeout_s: float) -> None:
        """Wait to be entered; collective. ``timeout_s``: above 0."""
        self.timeout_s = timeout_s
        self.is_asked = False
        self.is_first = dist.get_rank() == 0
        # On gloo whatever training runs on, so that a device is never waited for.
        self.group = host_group() if dist.get_world_size() > 1 else None
        self._asking: tuple[Tensor, Any] | None = None

    def agreed(self) -> bool:
        """Whether to stop now, the same on every rank. Collective; call it once a step.

        Looks at what the ranks said one call ago, which has arrived by now, so nobody waits.
        """
        if self.group is None:
            return self.is_asked
        asked, self._asking = self._asking, self._ask()
        is_agreed = asked is not None and self._answer(asked)
        if is_agreed and not self.is_asked:
            os.write(self._heard, bytes([signal.SIGTERM]))  # another rank's signal is ours too
        return is_agreed

    def check(self) -> None:
        """Raise ``Stopped`` if ``agreed``. Collective, as that is."""
        if self.agreed():
            raise Stopped

    def say(self, step: int) -> None:
        """Tell the user; call it once everything is on disk."""
        self._print(f"stopped by SIGTERM after step {step}; --resume goes on from there")

    def _ask(self) -> tuple[Tensor, Any]:
        flag = torch.full((1,), self.is_asked, dtype=torch.uint8)
        return flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self.group, async_op=True)

    def _answer(self, asked: tuple[Tensor, Any]) -> bool:
        flag, work = asked
        work.wait()
        return bool(flag)

    def __enter__(self) -> "Stop":
        self._hears, self._heard = os.pipe()
        os.set_blocking(self._heard, False)
        self._listener = threading.Thread(target=self._listen, name="stop", daemon=True)
        self._listener.start()
        self._is_handler = threading.current_thread() is threading.main_thread()
        if self._is_handler:
            self._before = signal.signal(signal.SIGTERM, self._ask_to_stop)
            # Python's handlers wait for the interpreter, which may be in a collective that hangs.
            self._fd_before = signal.set_wakeup_fd(self._heard, warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Everything is as it was, but for a process that was asked to end: it ends in time."""
        if self.group is not None and kind in (None, Stopped):  # else others may not be here
            if self._asking is not None:
                self._answer(self._asking)
            dist.destroy_process_group(self.group)
        if self.is_asked:
            return
        if self._is_handler:
            signal.set_wakeup_fd(self._fd_before)
            signal.signal(signal.SIGTERM, self._before)
        # Closing would not do: processes that were forked meanwhile hold the pipe open.
        os.write(self._heard, bytes([NO_SIGNAL]))
        self._listener.join()
        os.close(self._heard)
        os.close(self._hears)

    def _ask_to_stop(self, *_: object) -> None:
        self.is_asked = True

    def _listen(self) -> None:
        """The listener's work: wait for the signal, then for the time to be over."""
        while signal.SIGTERM not in (received := os.read(self._hears, 64)):
            if NO_SIGNAL in received:
                return
        self.is_asked = True
        time.sleep(self.timeout_s)
        self._print(
            f"stopped by SIGTERM without saving: {self.timeout_s:g} seconds are over; --resume "
            "goes on from the last checkpoint"
        )
        os._exit(STOPPED_BY_SIGTERM)

    def _print(self, line: str) -> None:
        if self.is_first:
            print(line, file=sys.stderr, flush=True)
