"""The loop: nothing is lost, nothing comes twice, nothing bad holds up the good."""

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers.commands import ROOT
from tests.helpers.live import SPACE, changes, new_index
from tests.helpers.updating import POISON, updater_of
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.near_line.source import Message


class Inbox:
    """A source in memory. calls: what was done to it, in order; away: calls that fail first."""

    def __init__(self, *fields: dict, away: int = 0) -> None:
        self.left = [Message(key, each, 0.0) for key, each in enumerate(fields)]
        self.done: list[int] = []
        self.dead: dict[int, str] = {}
        self.away = away
        self.then: Callable[[], None] = lambda: None

    def _reach(self) -> None:
        if self.away:
            self.away -= 1
            self.then()
            raise ConnectionError("away")

    def poll(self, most: int, wait_s: float) -> list[Message]:
        self._reach()
        taken, self.left = self.left[:most], self.left[most:]
        return taken

    def acknowledge(self, messages) -> None:
        self._reach()
        self.done += [message.key for message in messages]

    def bury(self, message: Message, reason: str) -> None:
        self.dead[message.key] = reason

    def waiting(self) -> int:
        return len(self.left)

    def close(self) -> None:
        pass


def event(item: int, version: int = 1, title: str | None = None, **more) -> dict:
    return {"item_id": item, "version": version, "title": title, **more}


@pytest.fixture
def room(tmp_path):
    return new_index(tmp_path)


def seen(index, *items: int) -> list[int | None]:
    values, mask = IndexReader(index).vectors.lookup(np.array(items))
    return [int(v[0]) if m else None for v, m in zip(values, mask, strict=True)]


def update(inbox: Inbox, log):
    updater = updater_of(inbox, log)
    updater.run(once=True)
    return updater


def test_created_changed_and_deleted_items_are_in_the_index_as_told(room):
    index, log = room
    inbox = Inbox(
        event(1, 1, "10"),
        event(2, 1, "20"),
        event(2, 2, "21", event="changed"),
        event(3, 1, "30"),
        event(3, 2, event="deleted"),
    )
    updater = update(inbox, log)
    assert seen(index, 1, 2, 3) == [10, 21, None]
    assert sorted(inbox.done) == [0, 1, 2, 3, 4]
    assert updater.metrics.count("applied") == 5
    assert inbox.dead == {}


def test_an_item_whose_contents_were_taken_away_has_no_vector_any_more(room):
    index, log = room
    update(Inbox(event(1, 1, "10"), event(1, 2, None)), log)
    assert seen(index, 1) == [None]


def test_what_the_index_knows_already_is_acknowledged_without_being_encoded(room):
    index, log = room
    log.write(changes((1, 5, 50), (2, 5, None)), SPACE.origin)
    inbox = Inbox(event(1, 5, "99"), event(1, 4, "99"), event(2, 4, "99"), event(1, 6, "60"))
    updater = update(inbox, log)
    assert seen(index, 1, 2) == [60, None]
    assert updater.encoder.seen == [1]
    assert sorted(inbox.done) == [0, 1, 2, 3]
    assert (updater.metrics.count("late"), updater.metrics.count("applied")) == (3, 1)


def test_a_message_is_acknowledged_after_its_vector_is_written_never_before(room, monkeypatch):
    _, log = room
    inbox = Inbox(event(1, 1, "10"))

    def killed(*_: object) -> None:
        assert inbox.done == []
        raise KeyboardInterrupt

    monkeypatch.setattr(log, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        update(inbox, log)
    assert inbox.done == []


def test_events_that_cannot_be_used_are_buried_with_the_reason_and_the_others_go_on(room):
    index, log = room
    inbox = Inbox(
        event(1, 1, "10"), event(2, 1, POISON), {"item_id": "x"}, event(3, 1, "30"), event(4, 1)
    )
    updater = update(inbox, log)
    assert seen(index, 1, 2, 3) == [10, None, 30]
    assert inbox.dead == {
        1: "vector could not be made: title must be a number",
        2: "item_id must be a whole number that int64 holds, got 'x'",
    }
    assert sorted(inbox.done) == [0, 3, 4]
    assert updater.metrics.count("buried") == 2
    errors = updater.metrics.registry.get_sample_value
    assert errors("item_event_errors_total", {"reason": "content"}) == 1
    assert errors("item_event_errors_total", {"reason": "event"}) == 1


def test_more_events_than_a_batch_has_come_in_several(room):
    index, log = room
    update(Inbox(*(event(i, 1, str(i)) for i in range(1, 30))), log)
    assert seen(index, *range(1, 30)) == list(range(1, 30))


def test_a_server_that_is_away_for_a_while_is_waited_for(room):
    index, log = room
    inbox = Inbox(event(1, 1, "10"), away=2)
    updater = update(inbox, log)
    assert seen(index, 1) == [10]
    assert inbox.done == [0]
    away = updater.metrics.registry.get_sample_value(
        "item_event_errors_total", {"reason": "connection"}
    )
    assert away == 2


def test_who_is_asked_to_stop_while_a_server_is_away_stops(room):
    _, log = room
    inbox = Inbox(event(1, 1, "10"), away=10**9)
    updater = updater_of(inbox, log)
    inbox.then = updater.stop.set
    updater.run(once=False)
    assert inbox.done == []


def test_who_is_asked_to_stop_finishes_the_batch_it_holds(room):
    index, log = room
    inbox = Inbox(*(event(i, 1, str(i)) for i in range(1, 30)))
    updater = updater_of(inbox, log)
    encode = updater.encoder.encode

    def stopping(events):
        updater.stop.set()
        return encode(events)

    updater.encoder.encode = stopping
    updater.run(once=False)
    assert inbox.done == list(range(8))
    assert seen(index, 8, 9) == [8, None]


def test_latency_is_counted_from_when_an_event_was_sent(room):
    updater = update(Inbox(event(1, 1, "10")), room[1])
    sample = updater.metrics.registry.get_sample_value
    assert sample("item_event_latency_seconds_count") == 1
    assert sample("item_event_latency_seconds_sum") > 1e9  # sent in 1970


@pytest.mark.kill
def test_a_worker_that_is_killed_again_and_again_loses_nothing(tmp_path):
    index, log = new_index(tmp_path)
    spool = tmp_path / "spool"
    spool.mkdir()
    for file in range(20):
        rows = [event(i, 1, str(i % 100 + 1)) for i in range(file * 50, file * 50 + 50)]
        (spool / f"{file:02}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "tests.helpers.updating", str(index), str(spool)]
    kills, at = 0, 0
    while log.last() < 1000:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
            worker.stdout.read(6)  # it has begun
            while log.last() < min(at + 250, 1000):
                assert worker.poll() is None
            worker.kill()
        kills, at = kills + 1, log.last()
    assert kills >= 3
    assert seen(index, *range(1000)) == [i % 100 + 1 for i in range(1000)]
    assert log.last() == 1000  # what came twice changed nothing
