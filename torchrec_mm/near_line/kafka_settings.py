"""How a topic of Kafka's protocol is named, and the settings of a client of its brokers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.errors import InputError

KAFKA = "kafka://"
URL = re.compile(r"kafka://([^/@\s]+)/([^/\s]+)")
NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # what Kafka lets a topic be called
LONGEST_BATCH_S = 300.0  # a worker that does not ask for more in this time loses its share
# Those that the promises of the source rest on.
OURS = (
    *("bootstrap.servers", "group.id", "session.timeout.ms", "heartbeat.interval.ms"),
    *("max.poll.interval.ms", "enable.auto.commit", "enable.auto.offset.store"),
    *("auto.offset.reset", "enable.partition.eof", "acks"),
)


@dataclass(frozen=True)
class Topic:
    """Which events, and for whom.

    brokers: HOST:PORT, several with commas. name: of the topic. group: of workers that share it.
    """

    brokers: str
    name: str
    group: str

    @classmethod
    def of(cls, url: str, group: str) -> "Topic":
        """``url``: kafka://HOST:PORT/TOPIC; InputError if it is none, or a name may not be."""
        found = URL.fullmatch(url)
        if not found or not NAME.fullmatch(found[2]):
            raise InputError(f"events must be kafka://HOST:PORT/TOPIC, got {url}")
        topic = cls(found[1], found[2], group)
        if not NAME.fullmatch(topic.dead):
            rule = "group must be of letters, digits, dots, underscores and hyphens, and short"
            raise InputError(f"{rule}, as {topic.name}.dead.GROUP names a topic, got {group}")
        return topic

    @property
    def dead(self) -> str:
        """The topic of what was buried."""
        return f"{self.name}.dead.{self.group}"


def client_settings(topic: Topic, properties: dict[str, str]) -> dict[str, Any]:
    """Of every client of the topic's brokers."""
    return {**properties, "bootstrap.servers": topic.brokers}


def consumer_settings(
    topic: Topic, properties: dict[str, str], claim_after_s: float
) -> dict[str, Any]:
    """Of one that commits by itself, is told when nothing is left, and begins with the oldest."""
    claim_ms = max(3, round(claim_after_s * 1000))
    return client_settings(topic, properties) | {
        "group.id": topic.group,
        "session.timeout.ms": claim_ms,
        "heartbeat.interval.ms": min(3000, claim_ms // 3),
        "max.poll.interval.ms": max(claim_ms, round(LONGEST_BATCH_S * 1000)),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
    }


def read_properties(file: Path) -> dict[str, str]:
    """Settings of a client, NAME=VALUE a line, as librdkafka names them: security, passwords.

    Raises:
        InputError: no such file, a line that is none, or a name that is not for users to set. What
            a line holds is not repeated: it may be a password.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"kafka_properties must be a text file, got {file}: {error}") from error
    properties = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals:
            raise InputError(f"kafka_properties must have lines NAME=VALUE, got {file} {number}")
        if name in OURS:
            raise InputError(f"kafka_properties must leave out {name}, got {file} {number}")
        properties[name] = value.strip()
    return properties
