"""Which events a worker of a Kafka topic is about to try, on disk before it tries them.

Kafka does not count how often a message was taken. A worker that is killed leaves its record, which
tells the next one what it had in hand: those are then tried one by one, and the one that kills
again and again is known. The files are of one host: of several, each counts for itself.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torchrec_mm.documents import read_record
from torchrec_mm.files import write_json

FORMAT = 1


@dataclass(frozen=True)
class Tried:
    """offset: of the first event in hand. until: of the last. times: that the first was tried."""

    offset: int
    until: int
    times: int

    def times_of(self, offset: int) -> int:
        """How often an event was tried and not done with; those behind the first were once."""
        if offset == self.offset:
            return self.times
        return int(self.offset < offset <= self.until)


NOTHING = Tried(-1, -1, 0)


class Share:
    """A partition for as long as this worker has it: what is in hand, and what may be committed."""

    def __init__(self, file: Path) -> None:
        """Read what a worker before left. ``file``: of the partition; its folder need not exist."""
        self._file = file
        self._before = read_record(file, Tried, FORMAT) if file.exists() else NOTHING
        self._is_done: dict[int, bool] = {}  # by offset, in order
        self.front: int | None = None  # before it is known

    def times(self, offset: int) -> int:
        """How often workers took an event and never ended it."""
        return self._before.times_of(offset)

    def take(self, offsets: Sequence[int]) -> None:
        """Have events in hand, in order; on disk when it returns."""
        self._is_done |= dict.fromkeys(offsets, False)
        self.front = first = next(iter(self._is_done))
        until = offsets[-1] if self.times(offsets[-1]) == 0 else self._before.until
        self._write(Tried(first, until, self.times(first) + 1))

    def done(self, offset: int) -> None:
        """One of them is; ``front`` is then the first that is not."""
        if offset in self._is_done:
            self._is_done[offset] = True
        while self._is_done and self._is_done[first := next(iter(self._is_done))]:
            del self._is_done[first]
            self.front = first + 1
        self.front = next(iter(self._is_done), self.front)

    def give_back(self) -> None:
        """Another worker has it from now on, and nothing was the fault of what is in hand."""
        if not self._is_done:
            return
        first = next(iter(self._is_done))
        if times := self.times(first):
            self._write(Tried(first, self._before.until, times))
        else:
            self._file.unlink(missing_ok=True)

    def _write(self, tried: Tried) -> None:
        write_json(self._file, {"format": FORMAT} | asdict(tried))
