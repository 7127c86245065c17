"""Item events in a topic of brokers that speak Kafka's protocol, read by a consumer group.

The offset of a partition is committed when everything before it is done with, so a worker that is
killed leaves the rest to the one that gets its partition. What cannot be used is copied, as it came
and with the reason, to the topic ``TOPIC.dead.GROUP``.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.near_line.events import fields_of_json
from torchrec_mm.near_line.kafka_dead import TIMEOUT_S, DeadLetters
from torchrec_mm.near_line.kafka_errors import CLIENT_LOG, REFUSALS, client_library, told
from torchrec_mm.near_line.kafka_settings import (
    Topic,
    client_settings,
    consumer_settings,
    read_properties,
)
from torchrec_mm.near_line.source import Message
from torchrec_mm.near_line.tried import Share

logger = logging.getLogger(__name__)
SILENCE_S = 10.0  # without events, an end or a share: the brokers are away, or the group is made
SLICE_S = 0.2  # in which a signal is heard

# A commit is too late: others have the partition, and get what was not committed.
NOT_OURS_ANY_MORE = (
    *("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"),
)


@dataclass(frozen=True)
class Taken:
    """A message of a worker. share: its partition, while it has it. raw: as the client has it."""

    share: Share
    raw: Any


class KafkaTopic:
    """A ``Source``: a group's share of a topic."""

    def __init__(
        self,
        url: str,
        *,
        group: str,
        tried: Path,
        claim_after_s: float,
        max_deliveries: int,
        properties: Path | None = None,
    ) -> None:
        """Name the topic; nothing is asked of the brokers yet.

        Args:
            url: kafka://HOST:PORT/TOPIC, several brokers with commas.
            group: of workers that share the messages; a new one begins with the oldest.
            tried: folder of what is being tried, see tried.py; made where there is none.
            claim_after_s: a worker of which nothing is heard for longer loses its share.
            max_deliveries: a message that was tried more often is broken.
            properties: file of further settings, see ``read_properties``.

        Raises:
            InputError: confluent-kafka, the client, is not installed, or knows no such setting; the
                URL, or the group's name, is none.
        """
        self._kafka = client_library(url)
        self._topic = Topic.of(url, group)
        self._url, self._tried, self._max_deliveries = url, tried, max_deliveries
        given = read_properties(properties) if properties else {}
        settings = consumer_settings(self._topic, given, claim_after_s)
        with told(url):
            self._consumer = self._kafka.Consumer(
                settings | {"error_cb": self._on_error}, logger=CLIENT_LOG
            )
            self._dead = DeadLetters(url, self._topic, client_settings(self._topic, given))
        self._problem: Any = None  # what the client complained of last
        self._is_begun = self._has_share = False
        self._shares: dict[int, Share] = {}  # by partition
        self._ended: set[int] = set()  # partitions of which nothing is left
        self._fetched: deque[Any] = deque()  # and not given yet

    def poll(self, most: int, wait_s: float) -> list[Message]:
        with told(self._url):
            if not self._is_begun:
                self._begin()
            if not self._fetched:
                self._fetch(most, wait_s)
            return self._given(most)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        moved = set()
        for message in messages:
            taken: Taken = message.key
            number = taken.raw.partition()
            if self._shares.get(number) is taken.share:
                taken.share.done(taken.raw.offset())
                moved.add(number)
        if moved:
            with told(self._url):
                self._commit(
                    [self._partition(number, self._shares[number].front) for number in moved]
                )

    def bury(self, message: Message, reason: str) -> None:
        """See ``Source``; a worker that is killed between the two leaves it there twice."""
        self._dead.add(message.key.raw, reason)
        self.acknowledge([message])

    def waiting(self) -> int:
        """In the partitions that are this worker's share."""
        with told(self._url):
            partitions = [self._partition(number) for number in self._shares]
            # Not asked for: some brokers answer with batches, but all say where a fetch ended.
            ends = [self._consumer.get_watermark_offsets(p, cached=True) for p in partitions]
            for partition in self._consumer.committed(partitions, TIMEOUT_S):
                share = self._shares[partition.partition]
                share.front = max(partition.offset, share.front or 0)
        fronts = [share.front or 0 for share in self._shares.values()]
        return sum(
            max(0, end - max(low, front)) for (low, end), front in zip(ends, fronts, strict=True)
        )

    def close(self) -> None:
        self._consumer.close()

    def _begin(self) -> None:
        """Have a place for what is buried, before there is any, and join the group."""
        name = self._topic.name
        found = self._consumer.list_topics(name, TIMEOUT_S).topics[name]
        if found.error:
            raise self._kafka.KafkaException(found.error)
        self._dead.make()
        self._consumer.subscribe(
            [name], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._is_begun = True

    def _fetch(self, most: int, wait_s: float) -> None:
        """Until there are messages, or nothing is left of the share for ``wait_s``."""
        until = time.monotonic() + wait_s
        self._problem = None
        while not self._fetched:
            now = time.monotonic()
            if now >= until and self._has_share and self._ended >= set(self._shares):
                return
            if now >= until + SILENCE_S:
                raise ConnectionError(f"{self._url} gives no share of its events: {self._problem}")
            wait = min(max(until - now, 0.01), SLICE_S)
            for message in self._consumer.consume(most, wait):
                self._sort(message)
            if self._problem and not self._fetched:
                raise self._kafka.KafkaException(self._problem)

    def _sort(self, message: Any) -> None:
        """A message to give, the end of a partition, or an error."""
        error = message.error()
        if not error:
            self._ended.discard(message.partition())
            self._fetched.append(message)
        elif error.name() == "_PARTITION_EOF":
            self._ended.add(message.partition())
        else:
            self._problem = error

    def _given(self, most: int) -> list[Message]:
        """The first that may be tried together, or one that must be tried alone."""
        given: list[Any] = []
        while self._fetched and len(given) < most:
            raw = self._fetched[0]
            is_suspect = self._shares[raw.partition()].times(raw.offset()) > 0
            if is_suspect and given:
                break
            given.append(self._fetched.popleft())
            if is_suspect:
                break
        messages = [self._message(raw) for raw in given]
        for number in {raw.partition() for raw in given}:
            offsets = [raw.offset() for raw in given if raw.partition() == number]
            self._shares[number].take(offsets)
        return messages

    def _message(self, raw: Any) -> Message:
        share = self._shares[raw.partition()]
        times = share.times(raw.offset())
        fields, broken = fields_of_json(raw.value() or b"")
        if times >= self._max_deliveries:
            rule = f"message must end after {self._max_deliveries} tries"
            broken = f"{rule}, was taken {times + 1} times"
        _, sent_ms = raw.timestamp()
        return Message(Taken(share, raw), fields, sent_ms / 1000, broken, alone=times > 0)

    def _commit(self, offsets: list[Any]) -> None:
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
            if errors := [partition.error for partition in done if partition.error]:
                raise self._kafka.KafkaException(errors[0])
        except self._kafka.KafkaException as error:
            if error.args[0].name() not in NOT_OURS_ANY_MORE:
                raise
            logger.warning("%s comes again: %s", self._url, error.args[0].str())

    def _partition(self, number: int, offset: int | None = None) -> Any:
        place = () if offset is None else (offset,)
        return self._kafka.TopicPartition(self._topic.name, number, *place)

    def _on_assign(self, _: object, partitions: Sequence[Any]) -> None:
        self._has_share = True
        for partition in partitions:
            file = (
                self._tried / f"{self._topic.name}.{self._topic.group}.{partition.partition}.json"
            )
            self._shares[partition.partition] = Share(file)

    def _on_revoke(self, _: object, partitions: Sequence[Any]) -> None:
        for share in self._dropped(partitions):
            share.give_back()

    def _on_lost(self, _: object, partitions: Sequence[Any]) -> None:
        """Others have had them for a while: their records are not ours to change."""
        self._dropped(partitions)

    def _dropped(self, partitions: Sequence[Any]) -> list[Share]:
        numbers = {partition.partition for partition in partitions}
        self._ended -= numbers
        self._has_share = False
        self._fetched = deque(raw for raw in self._fetched if raw.partition() not in numbers)
        return [self._shares.pop(number) for number in numbers]

    def _on_error(self, error: Any) -> None:
        if error.name() in ("_ALL_BROKERS_DOWN", *REFUSALS):
            self._problem = error
