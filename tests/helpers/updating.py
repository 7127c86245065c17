"""Updaters in tests: an encoder that reads the vector off the title, and a process to kill.

python -m tests.helpers.updating INDEX EVENTS
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.helpers.live import SPACE
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import open_log
from torchrec_mm.item_vectors.live.log import Log
from torchrec_mm.near_line.events import ItemEvent
from torchrec_mm.near_line.kafka_settings import KAFKA
from torchrec_mm.near_line.kafka_topic import KafkaTopic
from torchrec_mm.near_line.redis_stream import RedisStream
from torchrec_mm.near_line.source import Source
from torchrec_mm.near_line.spool import Spool
from torchrec_mm.near_line.updater import Batching, Encoded, Updater

POISON = "poison"


class TitleEncoder:
    """A title "7" is a vector of sevens. ``POISON`` cannot be encoded, nor can a batch with it."""

    origin = SPACE.origin

    def __init__(self) -> None:
        self.seen: list[int] = []

    def encode(self, events: Sequence[ItemEvent]) -> Encoded:
        if any(event.title == POISON for event in events):
            raise InputError("title must be a number")
        self.seen += [event.item_id for event in events]
        has = np.array([event.title is not None for event in events], bool)
        fills = np.array([int(event.title or 0) for event in events], np.int8)
        return Encoded(np.repeat(fills[:, None], SPACE.width, axis=1), has, {})


def stream_of(url: str, **changed: object) -> RedisStream:
    """The stream that tests send to, as one of a group."""
    settings = {"claim_after_s": 0.2, "max_deliveries": 3, "max_wait_s": 0.2} | changed
    return RedisStream(url, stream="events", group="all", **settings)


def topic_of(url: str, folder: Path, **changed: object) -> KafkaTopic:
    """A topic that tests send to, in a group of its name; ``folder``: of what is being tried."""
    group = url.rpartition("/")[2]
    settings = {"claim_after_s": 1.0, "max_deliveries": 3} | changed
    return KafkaTopic(url, group=group, tried=folder / "tried", **settings)


def source_of(events: str, folder: Path) -> Source:
    """What tests send to, whatever it is."""
    if events.startswith(KAFKA):
        return topic_of(events, folder)
    return stream_of(events) if "://" in events else Spool(Path(events), "all")


def updater_of(source: Source, log: Log) -> Updater:
    return Updater(source, TitleEncoder(), log, Batching(most=8, wait_s=0.05), None)


def main(index: str, events: str) -> None:
    """Update until killed; says when it begins."""
    source = source_of(events, Path(index))
    updater = updater_of(source, open_log(Path(index), SPACE.origin))
    print("ready", flush=True)
    updater.run(once=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
