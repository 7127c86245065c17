"""From files of requests to windows of their time, each once.

A window is ``window_s`` seconds of the requests' own time, on a grid from 1970 on. It closes with
the first request of a later one. A late request, older than the open window, is taken into that; a
duplicate is left out.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch.distributed as dist

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.errors import InputError
from torchrec_mm.online.remembered import Remembered
from torchrec_mm.online.spool import RequestSource
from torchrec_mm.online.stream_state import StreamState

logger = logging.getLogger(__name__)

LOOK_S = 0.2  # between two looks at a source without anything new


@dataclass(frozen=True)
class Window:
    """Requests to score, learn from, and save together; at least one.

    start: Unix seconds. parts: in the order in which they came, those of a file together.
    files: where they are from. state: of the stream behind them. late, duplicates: those of this
    window.
    """

    start: int
    parts: Sequence[Requests]
    files: Sequence[str]
    state: StreamState
    late: int
    duplicates: int


class Stream:
    """Reads a source from where a checkpoint says; on several ranks, the same on each."""

    def __init__(
        self,
        source: RequestSource,
        window_s: int,
        state: StreamState,
        remembered: np.ndarray,
        set_aside: Callable[[str, str], None],
    ) -> None:
        """Nothing is read yet.

        Args:
            source: of requests. window_s: length of a window.
            state, remembered: of a checkpoint.
            set_aside: told of a file that cannot be read, and why.
        """
        self.source, self.window_s, self.state = source, window_s, state
        self.remembered = Remembered(remembered.tolist())
        self._set_aside = set_aside
        self._waiting: list[str] = []  # files of the last look at the folder, the next one last
        self._requests: Requests | None = None  # of the file that is read
        self._is_away = False  # the source

    def next_window(self, once: bool, check: Callable[[], None]) -> Window | None:
        """Wait for a window that is over; None where nothing is left to wait for. Collective.

        Args:
            once: what is open when no file is left is over, too.
            check: called again and again meanwhile; what it raises ends the wait. Collective.
        """
        before, start = self.state, None
        parts: list[Requests] = []
        files: list[str] = []
        while True:
            if self._requests is None and not self._has_next(once):
                if once:
                    break
                check()
                time.sleep(LOOK_S)
                continue
            if start is None:
                start = self._start_of_next()
            taken, is_over = self._take(start)
            if len(taken):
                parts.append(taken)
                files.append(self.state.file)
            if self._requests is not None and self.state.row == len(self._requests):
                self._close_file()
            if is_over and parts:
                break
            if is_over:  # of nothing but duplicates
                start = None
        if not parts:
            return None
        assert start is not None  # parts are of a window
        done = self.source.kept(self.state.done)
        self.state = replace(self.state, window=start, done=done)
        late, duplicates = (
            getattr(self.state, name) - getattr(before, name) for name in ("late", "duplicates")
        )
        return Window(start, parts, files, self.state, late, duplicates)

    def _start_of_next(self) -> int:
        """Of the window that the next request is in."""
        window = self._windows(self.state.row)[0]
        newest = self.state.window
        return int(window if newest is None else max(window, newest))

    def _windows(self, row: int) -> np.ndarray:
        """Starts of the windows that the requests of the file belong to, from ``row`` on."""
        assert self._requests is not None and self._requests.timestamps is not None
        return self._requests.timestamps[row:] // self.window_s * self.window_s

    def _take(self, start: int) -> tuple[Requests, bool]:
        """What the file has next of a window; whether the window is over."""
        assert self._requests is not None
        windows = self._windows(self.state.row)
        later = np.flatnonzero(windows > start)
        count = int(later[0]) if len(later) else len(windows)
        rows = np.arange(self.state.row, self.state.row + count)
        taken = self._requests.take(rows)
        is_new = self.remembered.are_new(taken)
        is_late = windows[:count] < start
        self.state = replace(
            self.state,
            row=self.state.row + count,
            requests=self.state.requests + int(is_new.sum()),
            late=self.state.late + int((is_new & is_late).sum()),
            duplicates=self.state.duplicates + int((~is_new).sum()),
        )
        return taken.take(np.flatnonzero(is_new)), bool(len(later))

    def _has_next(self, once: bool) -> bool:
        """``_open_next``, of a source that may be away for a while; InputError if ``once``."""
        try:
            return self._open_next()
        except ConnectionError as error:
            if once:
                raise InputError(str(error)) from error
            if not self._is_away:
                logger.warning("%s; it is asked again and again", error)
            self._is_away = True
            return False

    def _open_next(self) -> bool:
        """Read the next file that can be read; False if there is none. Collective."""
        while True:
            name = self.state.file or self._agreed_name()
            if name is None:
                return False
            if not self.state.file:
                self.state = replace(self.state, file=name, row=0)
            self._requests, problem = self._read(name)
            self._is_away = False
            if problem is None:
                return True
            self.state = replace(self.state, set_aside=self.state.set_aside + 1)
            self._set_aside(name, problem)
            self._close_file()

    def _agreed_name(self) -> str | None:
        """The next file, as the first rank sees the source; its complaint on every rank."""
        found: list[str | ConnectionError | InputError | None] = [None]
        if dist.get_rank() == 0:
            try:
                if not self._waiting:
                    self._waiting = self.source.after(self.state.done)[::-1]
                found = [self._waiting.pop() if self._waiting else None]
            except (ConnectionError, InputError) as error:
                found = [type(error)(str(error))]
        dist.broadcast_object_list(found)
        (name,) = found
        if isinstance(name, Exception):
            raise name
        return name

    def _read(self, name: str) -> tuple[Requests | None, str | None]:
        """A file's requests, or what is wrong with it, the same on every rank. Collective.

        ConnectionError, on every rank, if one could not reach the source.
        """
        requests, problem, away = None, None, None
        try:
            requests = self.source.read(name)
            if self.state.row > len(requests):
                problem = f"{name} must hold what it held, got fewer requests"
        except InputError as error:
            problem = " ".join(str(error).split())
        except ConnectionError as error:
            away = str(error)
        said = [(problem, away)] * dist.get_world_size()
        dist.all_gather_object(said, (problem, away))
        if gone := next((each for _, each in said if each), None):
            raise ConnectionError(gone)
        found = next((each for each, _ in said if each), None)
        return (requests, None) if found is None else (None, found)

    def _close_file(self) -> None:
        done = (*self.state.done, self.state.file)
        self.state = replace(self.state, done=done, file="", row=0)
        self._requests = None
