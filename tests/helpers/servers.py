"""Real servers of Redis' protocol for tests: on loopback, each in a folder of its own."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REDIS = [pytest.param("redis", marks=pytest.mark.redis)]
SERVERS = [*REDIS, pytest.param("valkey", marks=pytest.mark.valkey)]


class Server:
    """A server that can be killed and started again; what it has acknowledged is on disk."""

    def __init__(self, kind: str, folder: Path) -> None:
        """``kind``: "redis" or "valkey", whose command is on the PATH."""
        self._program, self._folder = f"{kind}-server", folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return once it answers."""
        from redis import Redis
        from redis.backoff import ConstantBackoff
        from redis.exceptions import ConnectionError
        from redis.retry import Retry

        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        with (self._folder / "server.log").open("ab") as out:
            self._process = subprocess.Popen([self._program, *words], stdout=out, stderr=out)
        patient = Retry(ConstantBackoff(0.1), 300)
        with Redis(port=self.port, retry=patient, retry_on_error=[ConnectionError]) as client:
            client.ping()

    def kill(self) -> None:
        """SIGKILL; the port stays its own."""
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Server]:
    """A server for a block."""
    server = Server(kind, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
