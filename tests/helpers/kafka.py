"""A broker of Kafka's protocol for tests: on loopback, all in memory, reached through a relay.

The relay can be cut and joined again, which is how a broker goes away that would forget all.
"""

import json
import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from tests.helpers.servers import free_port

FRAME = 1 << 16
SILENT = logging.getLogger("tests.kafka")
SILENT.setLevel(logging.CRITICAL)  # clients tell at length that a broker is not up yet
NUMBERS = count()


class Relay:
    """Passes bytes on between its port and another, until it is cut."""

    def __init__(self, to: int) -> None:
        """``to``: a port of 127.0.0.1."""
        self._to, self.port = to, free_port()
        self._pairs: list[socket.socket] = []

    def join(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and refuse new ones; the port stays its own."""
        shut(self._listener, *self._pairs)
        self._pairs.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                pair = (one, socket.create_connection(("127.0.0.1", self._to)))
                self._pairs += pair
                for one, other in (pair, pair[::-1]):
                    threading.Thread(target=pass_on, args=[one, other], daemon=True).start()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(FRAME):
            other.sendall(data)
    shut(one, other)


def shut(*sockets: socket.socket) -> None:
    """Close them, and wake whoever reads from them."""
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def listens(port: int) -> bool:
    """Whether anybody does, at a port of 127.0.0.1."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


class Broker:
    """A broker, and what tests ask of it."""

    def __init__(self, folder: Path) -> None:
        """``folder``: for what it says."""
        self._folder, self._port = folder, free_port()
        self.relay = Relay(self._port)
        self.address = f"127.0.0.1:{self.relay.port}"
        self._client = {"bootstrap.servers": self.address}

    def start(self, *flags: str) -> None:
        """Return once it answers."""
        from confluent_kafka.admin import AdminClient

        where = ["--listener-url", f"tcp://127.0.0.1:{self._port}"]
        where += ["--advertised-listener-url", f"tcp://{self.address}"]
        with (self._folder / "broker.log").open("wb") as out:
            self._process = subprocess.Popen(
                ["tansu", "broker", *where, *flags, "--silent"], stdout=out, stderr=out
            )
        while not listens(self._port):
            assert self._process.poll() is None
        self.relay.join()
        self.admin = AdminClient(self._client, logger=SILENT)

    def stop(self) -> None:
        self.relay.cut()
        self._process.kill()
        self._process.wait()

    def topic(self, partitions: int = 2) -> str:
        """The URL of a new topic."""
        from confluent_kafka.admin import NewTopic

        name = f"events-{next(NUMBERS)}"
        (made,) = self.admin.create_topics([NewTopic(name, partitions, 1)]).values()
        made.result()
        return f"kafka://{self.address}/{name}"

    def send(self, url: str, *values: object, partition: int | None = None) -> None:
        """Values to a topic, in their order in each partition; objects as JSON."""
        from confluent_kafka import Producer

        producer = Producer(self._client, logger=SILENT)
        for number, value in enumerate(values):
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            place = number % 2 if partition is None else partition
            producer.produce(url.rpartition("/")[2], text, partition=place)
        assert not producer.flush(60)

    def dead(self, url: str) -> list[tuple[bytes, dict[str, bytes]]]:
        """Values and headers of what was buried."""
        from confluent_kafka import Consumer, TopicPartition

        name = url.rpartition("/")[2]
        settings = {"group.id": "tests", "enable.auto.commit": False, "enable.partition.eof": True}
        reader = Consumer(self._client | settings, logger=SILENT)
        reader.assign([TopicPartition(f"{name}.dead.{name}", 0, 0)])
        found = []
        while not (message := reader.poll(60)).error():
            found.append((message.value(), dict(message.headers())))
        reader.close()
        return found

    def committed(self, url: str, partitions: int = 2) -> list[int]:
        """The group's offset of each partition, 0 before it has one."""
        from confluent_kafka import Consumer, TopicPartition

        name = url.rpartition("/")[2]
        reader = Consumer(self._client | {"group.id": name}, logger=SILENT)
        asked = [TopicPartition(name, number) for number in range(partitions)]
        found = [max(0, partition.offset) for partition in reader.committed(asked, 60)]
        reader.close()
        return found


@contextmanager
def running_broker(folder: Path, *flags: str) -> Iterator[Broker]:
    """A broker for a block."""
    broker = Broker(folder)
    broker.start(*flags)
    try:
        yield broker
    finally:
        broker.stop()
