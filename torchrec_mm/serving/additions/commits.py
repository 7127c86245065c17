"""Many clients, one writer: what comes while it writes is written next, all at once.

To have one body on disk takes as long as to have hundreds.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torchrec_mm.serving.additions.body import Additions, Deletion
from torchrec_mm.serving.additions.store import AddedBehaviours, Outcome, Unkept
from torchrec_mm.serving.batcher import Refused

WAITING = 1_000  # bodies


@dataclass(frozen=True)
class _Waiting:
    change: Additions | Deletion
    answer: "asyncio.Future[Outcome | int]"


class Commits:
    """A queue before a store, in an event loop; it is bounded."""

    def __init__(self, store: AddedBehaviours) -> None:
        """``store``: written by no other thread of this process."""
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "additions")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Bodies that are not being written yet."""
        return len(self._waiting)

    async def add(self, additions: Additions) -> Outcome:
        """What became of it, once it is on disk; raises as ``delete`` does."""
        outcome = await self._written(additions)
        assert isinstance(outcome, Outcome)
        return outcome

    async def delete(self, deletion: Deletion) -> int:
        """How many behaviours were there, once that is on disk.

        Raises:
            Refused: too many wait. Unkept: it could not be written.
        """
        count = await self._written(deletion)
        assert isinstance(count, int)
        return count

    async def _written(self, change: Additions | Deletion) -> Outcome | int:
        if len(self._waiting) >= WAITING:
            raise Refused(f"{WAITING} bodies wait to be written, more than can be in time")
        waiting = _Waiting(change, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        return await waiting.answer

    async def stop(self) -> None:
        """Write what waits, and end."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()
        self._store.close()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = [*self._waiting]
            self._waiting.clear()
            changes = [waiting.change for waiting in taken]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._store.write, changes)
            except Unkept as error:
                for waiting in taken:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, outcome in zip(taken, outcomes, strict=True):
                if not waiting.answer.done():  # its client may have gone
                    waiting.answer.set_result(outcome)
