"""Item events in a topic of a real broker: shared, given again after a death, buried for good."""

import json
import threading
from contextlib import suppress

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.helpers.kafka import running_broker
from tests.helpers.live import new_index
from tests.helpers.updating import POISON, topic_of, updater_of
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.near_line import kafka_settings
from torchrec_mm.near_line.kafka_errors import told
from torchrec_mm.near_line.source import Message

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as started:
        yield started


@pytest.fixture
def opened(tmp_path):
    """Opens sources, and closes them."""
    sources = []

    def opened(url, **changed):
        sources.append(topic_of(url, tmp_path, **changed))
        return sources[-1]

    yield opened
    for source in sources:
        source.close()


def event(item: int, title: str | None = None) -> dict:
    return {"item_id": item, "version": 1, "title": title or str(item % 100 + 1)}


def items(messages: list[Message]) -> list[int]:
    return [message.fields["item_id"] for message in messages]


def all_of(source) -> list[Message]:
    """What it gives until nothing is left; nothing is done with."""
    found = []
    while messages := source.poll(9, 0.1):
        found += messages
    return found


def killed(source) -> None:
    """The end of a worker that gives nothing back."""
    for share in source._shares.values():
        share.give_back = lambda: None
    source.close()


def test_a_new_group_begins_with_the_oldest_event_and_keeps_the_order_of_a_partition(
    broker, opened
):
    url = broker.topic()
    broker.send(url, *map(event, range(20)))
    found = items(all_of(opened(url)))
    assert sorted(found) == list(range(20))
    assert [item for item in found if item % 2] == list(range(1, 20, 2))


def test_offsets_follow_what_is_done_with_and_never_pass_what_is_not(broker, opened):
    url = broker.topic(partitions=1)
    broker.send(url, *map(event, range(4)), partition=0)
    source = opened(url)
    messages = all_of(source)
    assert broker.committed(url, partitions=1) == [0]
    source.acknowledge(messages[2:3])
    assert broker.committed(url, partitions=1) == [0]
    source.acknowledge(messages[:2])
    assert broker.committed(url, partitions=1) == [3]
    source.acknowledge(messages[:2])  # asked again, as after a broken connection
    assert broker.committed(url, partitions=1) == [3]
    source.acknowledge(messages[3:])
    assert broker.committed(url, partitions=1) == [4]


def test_waiting_are_those_taken_and_those_not_taken_yet(broker, opened):
    url = broker.topic()
    broker.send(url, *map(event, range(10)))
    source = opened(url)
    messages = all_of(source)
    assert source.waiting() == 10
    source.acknowledge(messages[:3])
    assert source.waiting() == 7
    source.acknowledge(messages)
    assert source.waiting() == 0
    source.close()
    again = opened(url)
    assert all_of(again) == [] and again.waiting() == 0


def test_an_event_knows_when_it_was_sent(broker, opened, monkeypatch):
    url = broker.topic()
    broker.send(url, event(1))
    (message,) = all_of(opened(url))
    assert 1.7e9 < message.sent_s < 1e11


@pytest.mark.slow
def test_workers_share_the_partitions_and_one_that_leaves_gives_its_back(broker, opened):
    url = broker.topic()
    broker.send(url, *map(event, range(10)))
    one, two = opened(url), opened(url)
    assert len(all_of(one)) == 10
    joined = threading.Thread(target=lambda: shares.append(all_of(two)))
    shares: list[list[Message]] = []
    joined.start()
    while joined.is_alive():  # both are asked, or their group waits for the one that is not
        one.poll(9, 0.05)
    assert len(one._shares) == len(two._shares) == 1
    # What the first had in hand came again, and is no worker's fault.
    assert [message.alone for message in shares[0]] == [False] * 5
    one.close()
    while len(two._shares) < 2:
        two.poll(9, 0.05)


def test_what_was_in_hand_of_a_worker_that_died_is_tried_one_by_one(broker, opened):
    url = broker.topic(partitions=1)
    broker.send(url, *map(event, range(3)), partition=0)
    dying = opened(url)
    assert items(dying.poll(2, 1.0)) == [0, 1]
    killed(dying)
    source = opened(url)
    given = []
    while messages := source.poll(9, 0.1):
        given.append([(message.fields["item_id"], message.alone) for message in messages])
        source.acknowledge(messages)
    assert given == [[(0, True)], [(1, True)], [(2, False)]]


@pytest.mark.slow
def test_an_event_that_was_tried_too_often_is_broken_and_its_neighbours_are_not(broker, opened):
    url = broker.topic(partitions=1)
    broker.send(url, *map(event, range(3)), partition=0)
    seen = []
    for _ in range(4):  # each worker ends the first event, and dies of the second
        dying = opened(url)
        while messages := dying.poll(3, 0.1):
            seen += [(message.fields["item_id"], message.broken) for message in messages]
            if 1 in items(messages):
                break
            dying.acknowledge(messages)
        killed(dying)
    said = "message must end after 3 tries, was taken 4 times"
    assert seen == [*((item, "") for item in (0, 1, 2, 0, 1, 1)), (1, said)]
    last = opened(url)
    (poison,) = last.poll(3, 0.1)
    last.bury(poison, poison.broken)
    assert [(m.fields["item_id"], m.broken) for m in last.poll(3, 0.1)] == [(2, "")]


def test_what_is_buried_lies_in_a_topic_of_its_own_as_it_came_with_the_reason(broker, opened):
    url = broker.topic(partitions=1)
    broker.send(url, b"\xff no JSON", partition=0)
    source = opened(url)
    (message,) = all_of(source)
    assert message.broken.startswith("event must be JSON: ")
    source.bury(message, "why")
    assert broker.dead(url) == [
        (b"\xff no JSON", {"reason": b"why", "from": f"{url.rpartition('/')[2]}/0/0".encode()})
    ]
    assert broker.committed(url, partitions=1) == [1]


@pytest.mark.slow
def test_a_broker_that_goes_away_and_comes_back_loses_nothing(broker, opened, tmp_path):
    url = broker.topic()
    index, log = new_index(tmp_path)
    broker.send(url, *map(event, range(100)), event(100, POISON))
    updater = updater_of(opened(url), log)
    encode, batches = updater.encoder.encode, []

    def encode_as_the_broker_goes_away(events):
        batches.append(len(events))
        if len(batches) == 3:
            broker.relay.cut()
            threading.Thread(target=come_back).start()
        return encode(events)

    def come_back() -> None:
        while not updater.metrics.errors.labels("connection")._value.get():
            pass
        broker.relay.join()

    updater.encoder.encode = encode_as_the_broker_goes_away
    while log.last() < 100 or not updater.metrics.count("buried"):
        updater.run(once=True)
    values, mask = IndexReader(index).vectors.lookup(np.arange(100))
    assert mask.all() and values[:, 0].tolist() == list(range(1, 101))
    assert sum(broker.committed(url)) == 101
    assert [json.loads(value)["item_id"] for value, _ in broker.dead(url)] == [100]


@pytest.mark.slow
def test_a_worker_that_was_too_slow_commits_nothing_of_what_others_have(
    broker, opened, monkeypatch
):
    monkeypatch.setattr(kafka_settings, "LONGEST_BATCH_S", 1.0)
    url = broker.topic()
    broker.send(url, *map(event, range(4)))
    slow = opened(url)
    held = all_of(slow)
    while slow._consumer.memberid():  # it does not ask for more, and leaves the group
        pass
    slow.acknowledge(held)
    assert broker.committed(url) == [0, 0]
    again = []
    while len(again) < 4:  # one by one: for all that is known, they held it up
        with suppress(ConnectionError):  # it is told once that it was too slow
            again += slow.poll(9, 0.1)
        slow.acknowledge(again)
    assert sorted(items(again)) == [0, 1, 2, 3] and all(message.alone for message in again)
    assert broker.committed(url) == [2, 2]


def test_mistakes_are_told_in_one_line(tmp_path):
    for url in ("kafka://host:1", "kafka://user:secret@host:1/events", "kafka://host:1/a/b"):
        with pytest.raises(InputError, match="^events must be kafka://HOST:PORT/TOPIC, got kafka"):
            topic_of(url, tmp_path)
    settings = tmp_path / "client.properties"
    settings.write_text("# of the client\n\nsasl.password = a=b\nno.such.name = 1\n")
    with pytest.raises(InputError, match='No such configuration property: "no.such.name"'):
        topic_of("kafka://host:1/events", tmp_path, properties=settings)


def test_what_waiting_does_not_mend_is_refused_and_the_rest_is_waited_for():
    url = "kafka://host:1/events"
    with pytest.raises(InputError, match="^events must be a topic that can be read.*got kafka"):
        with told(url):
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    with pytest.raises(ConnectionError, match="^kafka://host:1/events cannot be reached: "):
        with told(url):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
