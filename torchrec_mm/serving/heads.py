"""Connections on which no whole head of a request comes in time are closed.

uvicorn waits for a head for ever: clients that send one byte now and then would hold a connection
each until there are no more. Bodies have their own limit, in app.py.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def heads_within(seconds: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn. ``seconds``: from a connection or first byte to the end of a head."""

    class HeadsInTime(H11Protocol):
        """The timer runs while a head is waited for: not through a body, nor between requests."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait()
            else:
                self._end()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def _end(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return HeadsInTime
