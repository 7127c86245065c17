"""What every source of item events does, whoever keeps the events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Message:
    """One event as it came.

    key: by which its source knows it. fields: as ``event_of`` reads them. sent_s: Unix seconds at
    which it was sent. broken: why it must not be tried, empty if it may. alone: nothing is to be
    tried with it, nor asked for before it is done with: a worker that had it did not end it.
    """

    key: Any
    fields: dict[str, Any]
    sent_s: float
    broken: str = ""
    alone: bool = False


class Source(Protocol):
    """Gives each message at least once, until it is acknowledged or buried.

    Every method raises ConnectionError while a server cannot be reached: it may be called again.
    """

    def poll(self, most: int, wait_s: float) -> list[Message]:
        """At most so many messages, at least one unless none came in ``wait_s`` seconds."""

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """These are done with."""

    def bury(self, message: Message, reason: str) -> None:
        """Keep it aside with the reason, where a person finds it; then it is done with."""

    def waiting(self) -> int:
        """How many are not done with; of files, how many files."""

    def close(self) -> None:
        """Let go of files and connections."""
