"""Clients of a scorer over HTTP/1.1: each asks, waits for the answer, and asks again."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

WARM_S = 1.0


@dataclass(frozen=True)
class Load:
    """What clients saw. requests_per_s: answered. p50_ms, p99_ms: of one request."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def load(
    host: str, port: int, kind: str, bodies: list[bytes], clients: int, seconds: float
) -> Load:
    """Ask for ``seconds`` after warming up.

    ``kind``: content type. ``bodies``: of requests, taken in turn.

    Raises:
        RuntimeError: an answer that is not 200.
    """
    return asyncio.run(_load(host, port, kind, bodies, clients, seconds))


async def _load(
    host: str, port: int, kind: str, bodies: list[bytes], clients: int, seconds: float
) -> Load:
    messages = [message_of(kind, body) for body in bodies]
    start = time.perf_counter() + WARM_S
    asking = [
        _client(host, port, messages[n:] + messages[:n], start, seconds) for n in range(clients)
    ]
    took = np.concatenate(await asyncio.gather(*asking)) * 1e3
    return Load(len(took) / seconds, *np.percentile(took, [50, 99]).tolist())


async def _client(
    host: str, port: int, messages: list[bytes], start: float, seconds: float
) -> np.ndarray:
    """Seconds of each request that was answered in time."""
    reader, writer = await asyncio.open_connection(host, port)
    took: list[float] = []
    try:
        while True:
            for message in messages:
                begin = time.perf_counter()
                writer.write(message)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                end = time.perf_counter()
                if b" 200 " not in head[:16]:
                    raise RuntimeError(f"the scorer answered {head[:40]!r} {body[:200]!r}")
                if end > start + seconds:
                    return np.array(took)
                if begin >= start:
                    took.append(end - begin)
    finally:
        writer.close()


def message_of(kind: str, body: bytes) -> bytes:
    """A request to score. ``kind``: its content type."""
    head = f"POST /score HTTP/1.1\r\nhost: scorer\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
