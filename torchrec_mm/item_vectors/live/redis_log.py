"""The log on a server that speaks Redis' protocol, for readers and writers on several hosts.

items: a hash, id to record: version and deletion as digits that sort as text, Unix seconds, vector.
log: a sorted set, id by sequence number. sequence, origin: strings. A batch is one script, which
the server runs whole or not at all. What it has acknowledged is as durable as it is told to make
it: ``appendonly yes``, and ``appendfsync always`` where a power cut must lose nothing.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.log import (
    Changes,
    Logged,
    Space,
    Written,
    changes_of,
    check_changes,
)

VERSION_DIGITS = 20
ORDER_DIGITS = VERSION_DIGITS + 1  # and one for a deletion
SECONDS_DIGITS = 20
HEAD_DIGITS = ORDER_DIGITS + SECONDS_DIGITS
OFFSET = 1 << 63  # versions are signed, digits are not
PAGE = 4096  # records fetched at a time
TIMEOUT_S = 10.0

# Digits are compared, not numbers: Lua's are floats, which tell large versions not apart.
WRITE = f"""
if redis.call('SETNX', KEYS[4], ARGV[1]) == 0 then
  local origin = redis.call('GET', KEYS[4])
  if origin ~= ARGV[1] then return origin end
end
local applied = 0
for i = 3, #ARGV, 3 do
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  if not before or string.sub(before, 1, {ORDER_DIGITS}) < ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ARGV[2] .. ARGV[i + 2])
    redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[i])
    applied = applied + 1
  end
end
return applied
"""

# Not the vectors, which are most of a record.
NEWEST = f"""
local newest = {{}}
for i = 1, #ARGV do
  newest[i] = string.sub(redis.call('HGET', KEYS[1], ARGV[i]) or '', 1, {ORDER_DIGITS})
end
return newest
"""


class RedisLog:
    """A ``Log`` on a server."""

    def __init__(self, url: str, name: str, space: Space) -> None:
        """Connect when it is first needed.

        Args:
            url: redis://HOST:PORT/DB; a password is taken from REDIS_PASSWORD.
            name: of the log there, which no other log shares.
            space: of its vectors.

        Raises:
            InputError: redis, the client, is not installed, or the URL is none.
        """
        try:
            import redis
        except ModuleNotFoundError as error:
            raise InputError(f"log {url} must have redis installed: pip install redis") from error
        self.space, self._url = space, url
        self._errors = (redis.ConnectionError, redis.TimeoutError)
        try:
            self._server: Any = redis.Redis.from_url(
                url, password=os.environ.get("REDIS_PASSWORD"), socket_timeout=TIMEOUT_S
            )
        except ValueError as error:
            raise InputError(f"log must be redis://HOST:PORT/DB, got {url}: {error}") from error
        kinds = ("items", "log", "sequence", "origin")
        self._keys = [f"{{{name}}}:{kind}" for kind in kinds]  # braces: on one host of a cluster
        self._write, self._newest = map(self._server.register_script, (WRITE, NEWEST))

    def last(self) -> int:
        with self._told():
            return int(self._server.get(self._keys[2]) or 0)

    def is_late(
        self, item_ids: np.ndarray, versions: np.ndarray, deleted: np.ndarray
    ) -> np.ndarray:
        with self._told():
            newest = self._newest(keys=self._keys[:1], args=item_ids.tolist())
        orders = map(_order, versions.tolist(), deleted.tolist())
        late = [order.encode() <= known for order, known in zip(orders, newest, strict=True)]
        return np.array(late, bool)

    def write(self, changes: Changes, origin: str) -> Written:
        check_changes(self.space, changes, origin)
        words: list[Any] = [origin, f"{time.time():0{SECONDS_DIGITS}.6f}"]
        for row in range(len(changes)):
            deleted = bool(changes.deleted[row])
            order = _order(int(changes.versions[row]), deleted)
            vector = b"" if deleted else changes.vectors[row].tobytes()
            words += [int(changes.item_ids[row]), order, vector]
        with self._told():
            applied = self._write(keys=self._keys, args=words)
        if isinstance(applied, bytes):
            rule = f"vectors must have the origin of the log, {applied.decode()}"
            raise InputError(f"{rule}, got {origin}")
        return Written(applied, len(changes) - applied)

    def since(self, sequence: int) -> Logged:
        item_ids: list[int] = []
        versions: list[int] = []
        vectors: list[bytes | None] = []
        newest_s = 0.0
        items, log, *_ = self._keys
        with self._told():
            while page := self._server.zrangebyscore(
                log, f"({sequence}", "+inf", start=0, num=PAGE, withscores=True
            ):
                # One that is overwritten meanwhile comes again on a later page.
                records = self._server.hmget(items, [item_id for item_id, _ in page])
                for (item_id, at), record in zip(page, records, strict=True):
                    item_ids.append(int(item_id))
                    versions.append(int(record[:VERSION_DIGITS]) - OFFSET)
                    deleted = record[VERSION_DIGITS:ORDER_DIGITS] == b"1"
                    vectors.append(None if deleted else record[HEAD_DIGITS:])
                    newest_s = float(record[ORDER_DIGITS:HEAD_DIGITS])
                    sequence = int(at)
        return Logged(changes_of(self.space, item_ids, versions, vectors), sequence, newest_s)

    def close(self) -> None:
        self._server.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The client's errors as Python's own."""
        try:
            yield
        except self._errors as error:
            raise ConnectionError(f"{self._url} cannot be reached: {error}") from error


def _order(version: int, deleted: bool) -> str:
    """Digits whose order as text is that of events."""
    return f"{version + OFFSET:0{VERSION_DIGITS}}{int(deleted)}"
