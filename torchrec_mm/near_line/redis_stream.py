"""Item events in a stream of a server that speaks Redis' protocol, read by a consumer group.

A message that a worker took and never acknowledged, because it was killed, is claimed by another
after a while, and tried alone. The server counts how often a message was taken: one that kills its
workers goes to the dead letters, the stream ``STREAM:dead:GROUP``, instead of to one after another.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torchrec_mm.errors import InputError
from torchrec_mm.near_line.source import Message

TIMEOUT_S = 10.0  # of an answer that nothing keeps waiting
Entry = tuple[bytes, dict[bytes, bytes]]


class RedisStream:
    """A ``Source``: a group's share of a stream."""

    def __init__(
        self,
        url: str,
        *,
        stream: str,
        group: str,
        claim_after_s: float,
        max_deliveries: int,
        max_wait_s: float,
    ) -> None:
        """Name the worker; nothing is asked of the server yet.

        Args:
            url: redis://HOST:PORT/DB; a password is taken from REDIS_PASSWORD.
            stream: its key.
            group: of workers that share the messages; a new one begins with the oldest.
            claim_after_s: a message that another worker has held for longer is taken from it.
            max_deliveries: a message that was taken more often is broken.
            max_wait_s: the longest that ``poll`` is asked to wait.

        Raises:
            InputError: redis, the client, is not installed, or the URL is none.
        """
        try:
            import redis
        except ModuleNotFoundError as error:
            raise InputError(
                f"events {url} must have redis installed: pip install redis"
            ) from error
        self._errors = (redis.ConnectionError, redis.TimeoutError)
        self._refusal = redis.ResponseError
        timeout_s = max_wait_s + TIMEOUT_S
        try:
            self._server: Any = redis.Redis.from_url(
                url, password=os.environ.get("REDIS_PASSWORD"), socket_timeout=timeout_s
            )
        except ValueError as error:
            raise InputError(f"events must be redis://HOST:PORT/DB, got {url}: {error}") from error
        self._url, self._stream, self._group = url, stream, group
        self._dead = f"{stream}:dead:{group}"
        self._worker = f"{socket.gethostname()}-{os.getpid()}"
        self._claim_after_s, self._max_deliveries = claim_after_s, max_deliveries
        self._is_there = False  # the group
        self._claim_at, self._claim_from = 0.0, b"0-0"

    def poll(self, most: int, wait_s: float) -> list[Message]:
        with self._told():
            if not self._is_there:
                self._make_group()
            if messages := self._claimed():
                return messages
            taken = self._server.xreadgroup(
                self._group,
                self._worker,
                {self._stream: ">"},
                count=most,
                block=max(1, round(wait_s * 1000)),
            )
            return [_message(entry) for entry in _entries(taken)]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        if messages:
            with self._told():
                keys = [message.key for message in messages]
                self._server.xack(self._stream, self._group, *keys)

    def bury(self, message: Message, reason: str) -> None:
        fields = {**message.fields, "reason": reason, "id": message.key}
        with self._told():
            both = self._server.pipeline(transaction=True)
            both.xadd(self._dead, fields)
            both.xack(self._stream, self._group, message.key)
            both.execute()

    def waiting(self) -> int:
        """Taken by a worker or by none yet."""
        with self._told():
            for group in self._server.xinfo_groups(self._stream):
                if group["name"] == self._group.encode():
                    return int(group["pending"]) + int(group.get("lag") or 0)
        return 0

    def close(self) -> None:
        self._server.close()

    def _claimed(self) -> list[Message]:
        """One that another worker has held for too long, if any; looked for now and then."""
        if time.monotonic() < self._claim_at:
            return []
        following, entries, *_ = self._server.xautoclaim(
            self._stream,
            self._group,
            self._worker,
            min_idle_time=round(self._claim_after_s * 1000),
            start_id=self._claim_from,
            count=1,
        )
        self._claim_from = following
        if following == b"0-0":  # all were looked at
            self._claim_at = time.monotonic() + self._claim_after_s / 2
        return [
            replace(_message(entry), broken=self._often(entry[0]), alone=True)
            for entry in entries
            if entry[1] is not None
        ]

    def _often(self, key: bytes) -> str:
        """Why a message was taken too often, empty if it was not."""
        held = self._server.xpending_range(self._stream, self._group, min=key, max=key, count=1)
        times = held[0]["times_delivered"] if held else 1
        if times <= self._max_deliveries:
            return ""
        return f"message must end after {self._max_deliveries} tries, was taken {times} times"

    def _make_group(self) -> None:
        try:
            self._server.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except self._refusal as error:
            if "BUSYGROUP" not in str(error):  # it is there
                raise
        self._is_there = True

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The client's errors as Python's own; a group that is gone is made again."""
        try:
            yield
        except self._errors as error:
            raise ConnectionError(f"{self._url} cannot be reached: {error}") from error
        except self._refusal as error:
            if "NOGROUP" not in str(error):
                raise
            self._is_there = False
            raise ConnectionError(f"{self._url} has lost its group {self._group}") from error


def _entries(taken: Any) -> list[Entry]:
    """Of one stream, whichever form the client gives them in."""
    if not taken:
        return []
    found = next(iter(taken.values())) if isinstance(taken, dict) else taken[0][1]
    # The newer protocol wraps them once more.
    return found[0] if found and isinstance(found[0], list) else found


def _message(entry: Entry) -> Message:
    key, fields = entry
    named = {name.decode(errors="replace"): value for name, value in fields.items()}
    return Message(key, named, int(key.split(b"-")[0]) / 1000)
