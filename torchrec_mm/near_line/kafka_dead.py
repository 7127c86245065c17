"""The topic of events of another topic that could not be used."""

from typing import Any

from torchrec_mm.near_line.kafka_errors import CLIENT_LOG, client_library, told
from torchrec_mm.near_line.kafka_settings import Topic

TIMEOUT_S = 10.0  # of an answer that nothing keeps waiting


class DeadLetters:
    """Takes messages as they came, with the reason and where they came from in their headers."""

    def __init__(self, url: str, topic: Topic, settings: dict[str, Any]) -> None:
        """``topic``: whose events they are. ``settings``: of a client; its errors pass through."""
        self._kafka, self._url, self._name = client_library(url), url, topic.dead
        self._settings = settings
        self._producer = self._kafka.Producer(settings | {"acks": "all"}, logger=CLIENT_LOG)

    def make(self) -> None:
        """Have the topic, which a person may have made with settings of their own."""
        from confluent_kafka import admin

        client = admin.AdminClient(self._settings, logger=CLIENT_LOG)
        (made,) = client.create_topics([admin.NewTopic(self._name, 1, -1)]).values()
        try:
            made.result()
        except self._kafka.KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise

    def add(self, raw: Any, reason: str) -> None:
        """Have it on the brokers' disks; ConnectionError while they do not take it.

        One that is too large with its headers goes there without its value.
        """
        where = f"{raw.topic()}/{raw.partition()}/{raw.offset()}"
        headers = [*(raw.headers() or ()), ("reason", reason.encode()), ("from", where.encode())]
        with told(self._url):
            try:
                self._put(raw.key(), raw.value(), headers)
            except self._kafka.KafkaException as error:
                if error.args[0].name() != "MSG_SIZE_TOO_LARGE":
                    raise
                self._put(raw.key(), None, headers)

    def _put(self, key: bytes | None, value: bytes | None, headers: list[Any]) -> None:
        failed: list[Any] = []
        self._producer.produce(
            self._name,
            value,
            key,
            headers=headers,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        if self._producer.flush(TIMEOUT_S):
            self._producer.purge()
            raise ConnectionError(f"{self._name} does not take what is buried")
        if failed:
            raise self._kafka.KafkaException(failed[0])
