"""Item events in a stream of a real server: shared, claimed from the dead, and buried for good."""

import numpy as np
import pytest
from redis import Redis

from tests.helpers.live import new_index
from tests.helpers.servers import SERVERS, running
from tests.helpers.updating import POISON, stream_of, updater_of
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.near_line.redis_stream import RedisStream
from torchrec_mm.near_line.source import Message


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def client(server):
    """Of the server, with nothing on it."""
    with Redis(port=server.port) as client:
        client.flushall()
        yield client


def send(client: Redis, *items: int, title: str | None = None) -> None:
    pipeline = client.pipeline()
    for item in items:
        pipeline.xadd("events", {"item_id": item, "version": 1, "title": title or item % 100 + 1})
    pipeline.execute()


def items(messages: list[Message]) -> list[int]:
    return [int(message.fields["item_id"]) for message in messages]


def pending(client: Redis) -> int:
    return client.xpending("events", "all")["pending"]


def test_a_new_group_begins_with_the_oldest_event(server, client):
    send(client, 1, 2, 3)
    stream = stream_of(server.url)
    assert items(stream.poll(2, 0.1)) == [1, 2]
    assert items(stream.poll(2, 0.1)) == [3]
    assert stream.poll(2, 0.01) == []


def test_workers_of_a_group_share_its_events(server, client):
    send(client, 1, 2)
    one, two = stream_of(server.url), stream_of(server.url)
    assert items(one.poll(1, 0.1)) + items(two.poll(1, 0.1)) == [1, 2]


def test_waiting_are_those_taken_and_those_not_taken_yet(server, client):
    send(client, 1, 2, 3)
    stream = stream_of(server.url)
    stream.acknowledge(stream.poll(1, 0.1))
    stream.poll(1, 0.1)
    assert stream.waiting() == 2
    assert pending(client) == 1


def test_an_event_knows_when_it_was_sent(server, client):
    client.xadd("events", {"item_id": 1}, id="1700000000123-0")
    (message,) = stream_of(server.url).poll(1, 0.1)
    assert message.sent_s == 1700000000.123


def test_what_a_dead_worker_held_is_claimed_after_a_while(server, client):
    send(client, 1, 2)
    stream_of(server.url).poll(9, 0.1)  # and it is never heard of again
    patient, eager = stream_of(server.url, claim_after_s=3600.0), stream_of(server.url)
    assert patient.poll(9, 0.3) == []
    for item in (1, 2):  # one by one: one of them may be what killed it
        claimed = eager.poll(9, 0.1)
        assert (items(claimed), claimed[0].alone) == ([item], True)
        eager.acknowledge(claimed)
    assert pending(client) == 0


def test_an_event_that_was_taken_too_often_is_broken(server, client):
    send(client, 1)
    seen = []
    for _ in range(20):
        # Each worker takes it and dies; its wait is longer than a claim needs.
        seen += stream_of(server.url, claim_after_s=0.001).poll(9, 0.01)
    broken = [message.broken for message in seen]
    assert broken[:3] == ["", "", ""]
    assert broken[3] == "message must end after 3 tries, was taken 4 times"


def test_what_is_buried_lies_among_the_dead_letters_with_the_reason(server, client):
    send(client, 7)
    stream = stream_of(server.url)
    (message,) = stream.poll(1, 0.1)
    stream.bury(message, "why")
    ((_, fields),) = client.xrange("events:dead:all")
    assert fields[b"item_id"] == b"7"
    assert (fields[b"reason"], fields[b"id"]) == (b"why", message.key)
    assert pending(client) == 0


def test_a_group_that_is_gone_is_made_again(server, client):
    send(client, 1)
    stream = stream_of(server.url)
    stream.acknowledge(stream.poll(1, 0.1))
    client.flushall()
    with pytest.raises(ConnectionError, match="has lost its group all"):
        stream.poll(1, 0.1)
    send(client, 2)
    assert items(stream.poll(1, 0.1)) == [2]


def test_poison_is_buried_and_the_rest_is_indexed(server, client, tmp_path):
    index, log = new_index(tmp_path)
    send(client, 1, 2)
    send(client, 3, title=POISON)
    send(client, 4)
    client.xadd("events", {"item_id": "none", "version": 1})
    updater_of(stream_of(server.url), log).run(once=True)
    vectors = IndexReader(index).vectors
    assert (vectors.rows(np.arange(1, 5)) >= 0).tolist() == [True, True, False, True]
    assert {fields[b"reason"] for _, fields in client.xrange("events:dead:all")} == {
        b"vector could not be made: title must be a number",
        b"item_id must be a whole number that int64 holds, got 'none'",
    }
    assert pending(client) == 0


def test_a_url_that_is_none_is_refused():
    with pytest.raises(InputError, match="events must be redis://HOST:PORT/DB"):
        stream_of("file:///tmp")


def test_a_server_with_stream_and_log_that_goes_away_in_mid_batch_loses_nothing(
    server, client, tmp_path
):
    index, log = new_index(tmp_path, log=server.url)
    send(client, *range(100))
    updater = updater_of(stream_of(server.url), log)
    encode, batches = updater.encoder.encode, []

    def encode_as_the_server_dies(events):
        batches.append(len(events))
        if len(batches) == 3:
            server.kill()
            server.start()
        return encode(events)

    updater.encoder.encode = encode_as_the_server_dies
    updater.run(once=True)
    values, mask = IndexReader(index).vectors.lookup(np.arange(100))
    assert mask.all()
    assert values[:, 0].tolist() == list(range(1, 101))
    assert pending(client) == 0


def test_a_stream_is_made_where_there_is_none(server, client):
    stream = RedisStream(
        server.url,
        stream="new",
        group="all",
        claim_after_s=1.0,
        max_deliveries=3,
        max_wait_s=0.1,
    )
    assert stream.poll(1, 0.01) == []
    assert stream.waiting() == 0
