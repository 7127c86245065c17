"""Thousands of events, and workers that are killed: every item is indexed, none is wrong.

Ten thousand events and ten kills, from each kind of server:
TORCHREC_MM_KILLS=10 python -m pytest tests/near_line/test_killed_workers.py
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.commands import ROOT
from tests.helpers.kafka import running_broker
from tests.helpers.live import new_index
from tests.helpers.servers import SERVERS, running
from tests.helpers.updating import source_of, updater_of
from torchrec_mm.item_vectors.live.log import Log
from torchrec_mm.item_vectors.live.reader import IndexReader

KILLS = int(os.environ.get("TORCHREC_MM_KILLS", "2"))
EVENTS = min(10_000, KILLS * 1000)
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
pytestmark = pytest.mark.kill


@dataclass(frozen=True)
class Sent:
    """Events on a server.

    left: how many are not done with. dead: were buried. interrupt: have the server away.
    """

    url: str
    left: Callable[[], int]
    dead: Callable[[], int]
    interrupt: Callable[[], None]


@contextmanager
def sent_to_redis(kind: str, folder: Path, events: list[dict]) -> Iterator[Sent]:
    """The server is killed and started again in between; what it has is on its disk."""
    from redis import Redis

    def interrupt() -> None:
        server.kill()
        server.start()

    with running(kind, folder) as server, Redis(port=server.port) as client:
        pipeline = client.pipeline()
        for event in events:
            pipeline.xadd("events", event)
        pipeline.execute()
        stream = source_of(server.url, folder)
        dead = "events:dead:all"
        yield Sent(server.url, stream.waiting, lambda: client.xlen(dead), interrupt)


@contextmanager
def sent_to_kafka(_: str, folder: Path, events: list[dict]) -> Iterator[Sent]:
    """The broker is cut off and joined again in between; killed, it would forget all."""

    def interrupt() -> None:
        broker.relay.cut()
        broker.relay.join()

    with running_broker(folder) as broker:
        url = broker.topic()
        broker.send(url, *events)
        yield Sent(
            url,
            lambda: EVENTS - sum(broker.committed(url)),
            lambda: len(broker.dead(url)),
            interrupt,
        )


SENT = {"redis": sent_to_redis, "valkey": sent_to_redis, "kafka": sent_to_kafka}


@pytest.fixture(params=[*SERVERS, KAFKA])
def sent(request, tmp_path) -> Iterator[Sent]:
    events = [{"item_id": item, "version": 1, "title": title(item)} for item in range(EVENTS)]
    folder = tmp_path / "server"
    folder.mkdir()
    with SENT[request.param](request.param, folder, events) as sent:
        yield sent


def title(item: int) -> str:
    return str(item % 100 + 1)


def written_by(worker: subprocess.Popen, log: Log, records: int) -> None:
    """Return once the log has so many, the worker being alive."""
    while log.last() < records:
        assert worker.poll() is None
        time.sleep(0.01)  # the worker needs the core, and its relay this process


@pytest.mark.slow
def test_workers_killed_again_and_again_and_a_server_that_goes_away_lose_no_event(sent, tmp_path):
    index, log = new_index(tmp_path)
    command = [sys.executable, "-m", "tests.helpers.updating", str(index), sent.url]
    for kill in range(1, KILLS + 1):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
            worker.stdout.read(6)  # it has begun
            written_by(worker, log, kill * EVENTS * 8 // (10 * KILLS))
            if kill == KILLS // 2:
                sent.interrupt()
                written_by(worker, log, log.last() + 1)  # the same worker goes on
            worker.kill()
    last = updater_of(source_of(sent.url, index), log)
    while sent.left() or log.last() < EVENTS:
        last.run(once=True)
    last.source.close()
    values, mask = IndexReader(index).vectors.lookup(np.arange(EVENTS))
    assert mask.all()
    assert values[:, 0].tolist() == [int(title(item)) for item in range(EVENTS)]
    assert log.last() == EVENTS
    assert not sent.dead()
