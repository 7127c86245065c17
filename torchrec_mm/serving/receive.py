"""A body on its way in: what kind it is, how large and how slow it may be."""

import asyncio
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from torchrec_mm.serving import wire

UNASKED = ("", "application/x-www-form-urlencoded")  # the latter is what curl says by itself


class Turned(Exception):
    """A body that is not taken: status and line of the answer, and whether nobody waits for it."""

    def __init__(self, status: int, said: str, is_gone: bool = False) -> None:
        super().__init__(said)
        self.status, self.said, self.is_gone = status, said, is_gone


class Gone(Exception):
    """The client did not wait for its answer."""


async def received(request: Request, most_bytes: int, timeout_s: float) -> tuple[str, bytes]:
    """Content type and body; Turned for what is not taken."""
    kind = request.headers.get("content-type", wire.JSON).partition(";")[0].strip().lower()
    if kind in UNASKED:
        kind = wire.JSON
    if kind not in (wire.JSON, wire.ARROW):
        raise Turned(415, f"content-type must be {wire.JSON} or {wire.ARROW}, got {kind}")
    try:
        return kind, await asyncio.wait_for(_body(request, most_bytes), timeout_s)
    except asyncio.TimeoutError as error:
        raise Turned(408, f"body must arrive within {timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise Turned(400, "the client has gone", is_gone=True) from error


async def until_gone(request: Request) -> None:
    """Returns when the client has closed the connection; its body has been read."""
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await request.receive()


async def _body(request: Request, most: int) -> bytes:
    rule = f"body must be at most {most} bytes"
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > most:
        raise Turned(413, f"{rule}, got {said}")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Turned(413, f"{rule}, got more")
        parts.append(part)
    return b"".join(parts)
