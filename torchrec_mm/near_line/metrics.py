"""What an updater tells Prometheus: how far behind it is, how long things take, what went wrong."""

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from torchrec_mm.errors import InputError

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """Counters of one updater.

    events: by outcome, "applied", "late" (its item has a newer version already) or "buried".
    errors: by reason. waiting: messages, or files, not done with. latency: seconds from when an
    event was sent until its vector was written. encoding: seconds of a batch.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "item_events", "Item events done with", ["outcome"], registry=self.registry
        )
        self.errors = Counter("item_event_errors", "Errors", ["reason"], registry=self.registry)
        self.waiting = Gauge("item_events_waiting", "Not done with", registry=self.registry)
        self.latency = Histogram(
            "item_event_latency_seconds",
            "Sent to written",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.encoding = Histogram(
            "item_encoding_seconds", "Of a batch", registry=self.registry, buckets=SECONDS
        )

    def count(self, outcome: str) -> int:
        """Events of an outcome so far."""
        value = self.registry.get_sample_value("item_events_total", {"outcome": outcome})
        return int(value or 0)

    def serve(self, port: int) -> tuple[WSGIServer, Thread]:
        """Answer /metrics on this machine's loopback; the server, and the thread it has.

        Raises:
            InputError: the port is taken.
        """
        try:
            return start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            rule = "metrics_port must be one that is free"
            raise InputError(f"{rule}, got {port}: {error.strerror}") from error
