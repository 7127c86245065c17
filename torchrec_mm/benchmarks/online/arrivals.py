"""Clients that come when they come, whether or not the server keeps up.

Clients that wait for their answer before they ask again hide what a pause costs: fewer of them ask.

Shape letter: n requests.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchrec_mm.benchmarks.online.load import message_of

ANSWER_S = 30.0  # the longest that an answer is waited for
CHECKPOINT = re.compile(rb'"checkpoint": ?"([^"]*)"')
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Arrivals:
    """What became of n requests, in the order in which they were due.

    due_s: (n,) on the clock of ``time.time``. took_s: (n,) from when it was due to its answer.
    is_scored: (n,) bool, False where the answer was another than 200, or none. checkpoints: the
    time at which each name was in an answer first.
    """

    due_s: np.ndarray
    took_s: np.ndarray
    is_scored: np.ndarray
    checkpoints: dict[str, float]


def arrive(
    host: str, port: int, kind: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int
) -> Arrivals:
    """Ask as a Poisson process does.

    Args:
        kind: content type, application/json. bodies: of requests, taken in turn.
        rate: requests a second on average. seconds: until the last one. seed: of the times.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(1, round(rate * seconds)))
    messages = [message_of(kind, body) for body in bodies]
    return asyncio.run(_Clients(host, port).run(messages, np.cumsum(gaps)))


class _Clients:
    """As many connections as are in use at once."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._idle: list[Connection] = []
        self._seen: dict[str, float] = {}

    async def run(self, messages: Sequence[bytes], after_s: np.ndarray) -> Arrivals:
        start, asked = time.time(), []
        for number, after in enumerate(after_s):
            due = start + after
            if (wait := due - time.time()) > 0:
                await asyncio.sleep(wait)
            asked.append(asyncio.create_task(self._ask(messages[number % len(messages)], due)))
        took, scored = zip(*await asyncio.gather(*asked), strict=True)
        for _, writer in self._idle:
            writer.close()
        return Arrivals(start + after_s, np.array(took), np.array(scored), self._seen)

    async def _ask(self, message: bytes, due: float) -> tuple[float, bool]:
        """Seconds until the answer, and whether it was a score."""
        try:
            is_scored = await asyncio.wait_for(self._answered(message), ANSWER_S)
        except (OSError, EOFError, asyncio.TimeoutError):
            is_scored = False
        return time.time() - due, is_scored

    async def _connected(self) -> Connection:
        """One that is idle, or a new one; a server closes those that have been idle for long."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._where)

    async def _answered(self, message: bytes) -> bool:
        connection = reader, writer = await self._connected()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self._idle.append(connection)
        if found := CHECKPOINT.search(body):
            self._seen.setdefault(found[1].decode(), time.time())
        return b" 200 " in head[:16]
