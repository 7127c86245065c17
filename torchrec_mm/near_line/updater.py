"""The loop: take events, encode, write, then acknowledge.

A batch that is killed between writing and acknowledging comes again, and changes nothing. Events
that cannot be used are buried with the reason, and hold up no others.

Shape letters: n events of a batch, D item-vector width.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol, TypeVar

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.log import Changes, Log
from torchrec_mm.item_vectors.store import DTYPES
from torchrec_mm.near_line.events import ItemEvent, event_of
from torchrec_mm.near_line.metrics import Metrics
from torchrec_mm.near_line.source import Message, Source

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0  # before a server that is away is tried again
WAITING_EVERY_S = 5.0  # between two looks at how many are waiting


@dataclass(frozen=True)
class Encoded:
    """Vectors of n events.

    vectors: (n, D) as stored. has: (n,) bool, False where there is nothing to encode: an item whose
    title and picture were taken away. broken: why there is no vector, by place.
    """

    vectors: np.ndarray
    has: np.ndarray
    broken: dict[int, str]


class EventEncoder(Protocol):
    """What vectors come from. origin: of them."""

    origin: str

    def encode(self, events: Sequence[ItemEvent]) -> Encoded:
        """Of n events, none of them a deletion; InputError or RuntimeError for what it cannot."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """most: events of a batch. wait_s: how long the first of them waits for the others."""

    most: int
    wait_s: float


class Stopped(Exception):
    """Asked to stop while a server is away: what is held stays with its source."""


class Updater:
    """Brings a log of a live index up to date with a source of events."""

    def __init__(
        self,
        source: Source,
        encoder: EventEncoder,
        log: Log,
        batching: Batching,
        pictures: Path | None,
    ) -> None:
        """Hold the parts.

        Args:
            source: of events.
            encoder: of the log's origin.
            log: to write to.
            batching: how many events are encoded at once.
            pictures: folder that events' image_path is relative to, None to refuse those.
        """
        self.source, self.encoder, self.log = source, encoder, log
        self.batching, self.pictures = batching, pictures
        self.metrics = Metrics()
        self.stop = Event()
        self._look_at = 0.0

    def run(self, *, once: bool) -> None:
        """Go on until ``stop`` is set, then end with the batch at hand.

        ``once``: end, too, when no event came for as long as a batch waits.
        """
        try:
            while not self.stop.is_set():
                if messages := self._collect():
                    for together in _apart(messages):
                        self._apply(together)
                elif once:
                    return
                self._look()
        except Stopped:
            return

    def _collect(self) -> list[Message]:
        """As many messages as a batch has, or those that came in its time."""
        messages: list[Message] = []
        until = time.monotonic() + self.batching.wait_s
        while len(messages) < self.batching.most and not self.stop.is_set():
            left = until - time.monotonic()
            if messages and left <= 0:
                break
            most = self.batching.most - len(messages)
            more = self._patiently(self.source.poll, most, max(left, 0.0))
            if not more and not messages:
                break
            messages += more
            if more and more[-1].alone:
                break
        return messages

    def _apply(self, messages: list[Message]) -> None:
        events = self._read(messages)
        late = self._late([event for _, event in events])
        fresh = [events[place] for place in np.flatnonzero(~late)]
        written, changes = self._encode(fresh)
        if written:
            self._patiently(self.log.write, changes, self.encoder.origin)
        now = time.time()
        for message in written:
            self.metrics.latency.observe(max(0.0, now - message.sent_s))
        done = written + [events[place][0] for place in np.flatnonzero(late)]
        self._patiently(self.source.acknowledge, done)
        self.metrics.events.labels("applied").inc(len(written))
        self.metrics.events.labels("late").inc(int(late.sum()))

    def _read(self, messages: list[Message]) -> list[tuple[Message, ItemEvent]]:
        events = []
        for message in messages:
            try:
                if message.broken:
                    raise InputError(message.broken)
                events.append((message, event_of(message.fields, self.pictures)))
            except InputError as error:
                self._bury(message, "event", str(error))
        return events

    def _late(self, events: list[ItemEvent]) -> np.ndarray:
        """(n,) bool, True where the log knows as much already: not worth encoding."""
        if not events:
            return np.zeros(0, bool)
        return self._patiently(self.log.is_late, *_columns(events))

    def _encode(self, events: list[tuple[Message, ItemEvent]]) -> tuple[list[Message], Changes]:
        """The messages that can be written, and what is written of them."""
        space = self.log.space
        vectors = np.zeros((len(events), space.width), DTYPES[space.dtype])
        has = np.zeros(len(events), bool)
        usable = np.ones(len(events), bool)
        places = [place for place, (_, event) in enumerate(events) if not event.deleted]
        began = time.monotonic()
        for encoded, at in self._groups(places, events):
            vectors[at], has[at] = encoded.vectors, encoded.has
            for place, reason in encoded.broken.items():
                usable[at[place]] = False
                self._bury(events[at[place]][0], "content", reason)
        if places:
            self.metrics.encoding.observe(time.monotonic() - began)
        kept = np.flatnonzero(usable)
        item_ids, versions, _ = _columns([events[place][1] for place in kept])
        changes = Changes(item_ids, versions, ~has[kept], vectors[kept])
        return [events[place][0] for place in kept], changes

    def _groups(
        self, places: list[int], events: list[tuple[Message, ItemEvent]]
    ) -> list[tuple[Encoded, list[int]]]:
        """All at once; where that fails, each alone, so that one bad event harms no other."""
        if not places:
            return []
        try:
            return [(self.encoder.encode([events[place][1] for place in places]), places)]
        except (InputError, RuntimeError) as error:
            if len(places) > 1:
                return [pair for place in places for pair in self._groups([place], events)]
            space = self.log.space
            nothing = np.zeros((1, space.width), DTYPES[space.dtype])
            reason = f"vector could not be made: {error}"
            return [(Encoded(nothing, np.zeros(1, bool), {0: reason}), places)]

    def _bury(self, message: Message, kind: str, reason: str) -> None:
        self.metrics.errors.labels(kind).inc()
        self._patiently(self.source.bury, message, reason)
        self.metrics.events.labels("buried").inc()

    def _look(self) -> None:
        """Now and then, how much is waiting."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + WAITING_EVERY_S
            self.metrics.waiting.set(self._patiently(self.source.waiting))

    def _patiently(self, call: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Call again and again while a server is away; ``Stopped`` if asked to stop meanwhile."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return call(*arguments)
            except ConnectionError as error:
                self.metrics.errors.labels("connection").inc()
                if wait_s == FIRST_WAIT_S:
                    logger.warning("waits: %s", error)
                if self.stop.wait(wait_s):
                    raise Stopped from error
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _apart(messages: list[Message]) -> list[list[Message]]:
    """Those that may be tried together, then the others one by one."""
    together = [message for message in messages if not message.alone]
    apart = [[message] for message in messages if message.alone]
    return [together, *apart] if together else apart


def _columns(events: list[ItemEvent]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) item ids int64, versions int64, and deleted bool."""
    return (
        np.array([event.item_id for event in events], np.int64),
        np.array([event.version for event in events], np.int64),
        np.array([event.deleted for event in events], bool),
    )
