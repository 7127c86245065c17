"""Requests that wait together are scored together; the unit is candidates, not requests.

Nothing waits for company: while a batch is scored, what arrives meanwhile is the next one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from torchrec_mm.data.contract.requests import Requests

logger = logging.getLogger(__name__)

USUAL_SHARE = 1 / 16  # of the newest client in what clients usually ask for

Score = Callable[[Sequence[Requests]], "Scored"]


@dataclass(frozen=True)
class Scored:
    """What a batch came to.

    probabilities: of each of its parts, (I,) float32 of the impressions of all requests of the
    part. checkpoint: by which.
    """

    probabilities: Sequence[np.ndarray]
    checkpoint: str


class Refused(Exception):
    """A request that is not scored, and no fault of its own: the server is too busy for it."""


@dataclass
class Waiting:
    """What one client has asked, until when the answer is of use, and the answer."""

    requests: Requests
    deadline: float
    answer: "asyncio.Future[tuple[np.ndarray, str]]" = field(repr=False)
    since: float = field(default_factory=time.monotonic)


class MicroBatcher:
    """A queue, bounded by candidates, before one thread that scores.

    In an event loop; ``start`` and ``stop`` it there.
    """

    def __init__(
        self,
        score: Score,
        *,
        batch_candidates: int,
        queue_candidates: int,
        observed: Callable[[int, int, float], None] = lambda requests, candidates, seconds: None,
    ) -> None:
        """Nothing is scored before ``start``.

        Args:
            score: called in the thread, with what one batch holds.
            batch_candidates: in one batch, unless a single client asks for more.
            queue_candidates: of all that wait.
            observed: told of each batch that was scored: clients, candidates, and how long it took.
        """
        self._score, self._observed = score, observed
        self._batch_candidates, self._queue_candidates = batch_candidates, queue_candidates
        self._waiting: deque[Waiting] = deque()
        self._queued, self._usual = 0, 0.0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "scorer")
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def queued(self) -> int:
        """Candidates that wait."""
        return self._queued

    def check_room(self) -> None:
        """Refused where as much as clients usually ask for has no room.

        To be called before a request is read: what is read and then refused keeps the others from
        being scored, and the more of it comes, the fewer are.
        """
        if self._is_closed:
            raise Refused("the server is ending")
        self._check_room(self._usual)

    def _check_room(self, count: float) -> None:
        if self._queued and self._queued + count > self._queue_candidates:
            raise Refused(f"{self._queued} candidates are waiting, more than can be scored in time")

    def start(self) -> None:
        """Begin to score."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Score what waits, take nothing more, and end."""
        self._is_closed = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def ask(self, requests: Requests, timeout_s: float) -> tuple[np.ndarray, str]:
        """The probabilities of the requests' impressions, and the checkpoint that they are of.

        Cancelled, as where the client has gone, it takes no room in a batch any more.

        Raises:
            Refused: the queue is full, or the time is over.
        """
        count = requests.num_impressions
        if self._is_closed:
            raise Refused("the server is ending")
        self._usual += (count - self._usual) * USUAL_SHARE if self._usual else count
        self._check_room(count)
        loop = asyncio.get_running_loop()
        waiting = Waiting(requests, time.monotonic() + timeout_s, loop.create_future())
        self._waiting.append(waiting)
        self._queued += count
        self._arrived.set()
        try:
            return await asyncio.wait_for(waiting.answer, timeout_s)
        except asyncio.TimeoutError as error:
            raise Refused(f"no score within {timeout_s:g} s") from error

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._is_closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = self._next_batch()
            if batch:
                await self._answer(batch)

    def _next_batch(self) -> list[Waiting]:
        """Those that came first and still want an answer."""
        batch: list[Waiting] = []
        candidates, now = 0, time.monotonic()
        while self._waiting:
            first = self._waiting[0]
            count = first.requests.num_impressions
            if batch and candidates + count > self._batch_candidates:
                break
            self._waiting.popleft()
            self._queued -= count
            if first.answer.done() or first.deadline <= now:  # cancelled, or too late
                continue
            batch.append(first)
            candidates += count
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            asked = [waiting.requests for waiting in batch]
            scored = await loop.run_in_executor(self._thread, self._score, asked)
        except Exception as error:
            await self._answer_apart(batch, error)
            return
        for waiting, own in zip(batch, scored.probabilities, strict=True):
            _give(waiting, (own, scored.checkpoint))
        candidates = sum(waiting.requests.num_impressions for waiting in batch)
        self._observed(len(batch), candidates, time.monotonic() - start)

    async def _answer_apart(self, batch: list[Waiting], error: Exception) -> None:
        """One of them is at fault: alone it fails alone."""
        if len(batch) == 1:
            logger.error("a request could not be scored", exc_info=error)
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for waiting in batch:
            await self._answer([waiting])


def _give(waiting: Waiting, answer: tuple[np.ndarray, str]) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)
