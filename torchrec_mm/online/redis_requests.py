"""A stream of a server of Redis' protocol that requests keep arriving in, a Parquet file an entry.

Nothing on the server is changed, and no consumer group is made: how far the stream was read is in
the checkpoints of whoever reads.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.errors import InputError
from torchrec_mm.online.spool import RequestSpool

logger = logging.getLogger(__name__)

FIELD = b"requests"
TIMEOUT_S = 10.0  # of an answer
AT_ONCE = 17  # entries of one look: the server sends what is in them, too


class RedisRequests:
    """The entries of a stream, for a ranker that knows some columns; a ``RequestSource``."""

    def __init__(self, url: str, stream: str, known: RequestColumns, max_behaviours: int) -> None:
        """Nothing is asked of the server yet.

        Args:
            url: redis://HOST:PORT/DB; a password is taken from REDIS_PASSWORD. stream: its key.
            known: the columns of the ranker. max_behaviours: the newest that are kept.

        Raises:
            InputError: redis, the client, is not installed, or the URL is none.
        """
        try:
            import redis
        except ModuleNotFoundError as error:
            rule = "follow_redis must have redis installed: pip install redis"
            raise InputError(rule) from error
        self._errors = (redis.ConnectionError, redis.TimeoutError)
        self._refusals = (redis.AuthenticationError, redis.ResponseError)
        try:
            self._server: Any = redis.Redis.from_url(
                url, password=os.environ.get("REDIS_PASSWORD"), socket_timeout=TIMEOUT_S
            )
        except ValueError as error:
            rule = "follow_redis must be redis://HOST:PORT/DB"
            raise InputError(f"{rule}, got {url}: {error}") from error
        self._url, self._stream = url, stream
        self._known, self._max_behaviours = known, max_behaviours

    def after(self, done: Sequence[str]) -> list[str]:
        """Entries behind the last of ``done``, some of them; ConnectionError.

        InputError: the server refuses: it wants a password, the key is no stream.
        """
        last = done[-1] if done else ""
        try:
            with self._told():
                found = [key.decode() for key, _ in self._entries(last or "-", "+")]
        except self._refusals as error:
            rule = f"follow_redis must be a server with a stream {self._stream}"
            raise InputError(f"{rule}, got {self._url}: {error}") from error
        if found and last and found[0] != last:
            logger.warning(
                "%s %s has no entry %s any more: some behind it may have been trimmed, too, "
                "before they were learned from",
                *(self._url, self._stream, last),
            )
        return [name for name in found if name != last]

    def kept(self, done: Sequence[str]) -> tuple[str, ...]:
        """What a checkpoint has to know of ``done``: the last, as entries are in order."""
        return tuple(done[-1:])

    def read(self, name: str) -> Requests:
        """The requests of an entry, as of a file; also a ConnectionError.

        Raises:
            InputError: the entry is gone, has no field ``requests``, or what a file raises.
        """
        try:
            with self._told():
                found = self._entries(name, name)
        except self._refusals as error:  # no fault of the entry
            raise ConnectionError(f"{self._url} refuses: {error}") from error
        if not found or FIELD not in found[0][1]:
            rule = f"{self._stream} {name} must be an entry with the field {FIELD.decode()}"
            raise InputError(f"{rule}, got {'none' if not found else sorted(found[0][1])}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name}.parquet")
            file.write_bytes(found[0][1][FIELD])
            try:
                files = RequestSpool(Path(folder), self._known, self._max_behaviours)
                return files.read(file.name)
            except InputError as error:
                said = str(error).replace(str(file), f"{self._stream} {name}")
                raise InputError(said.replace(folder, f"{self._stream} {name}")) from error

    def _entries(self, first: str, last: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: list[tuple[bytes, dict[bytes, bytes]]] = self._server.xrange(
            self._stream, first, last, count=AT_ONCE
        )
        return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        """That the server is away as Python's own error."""
        try:
            yield
        except self._refusals:
            raise
        except self._errors as error:
            raise ConnectionError(f"{self._url} cannot be reached: {error}") from error
