"""What Prometheus reads, on this machine alone."""

import socket
from urllib.request import urlopen

from torchrec_mm.near_line.metrics import Metrics


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_metrics_are_told_on_loopback_and_nowhere_else():
    metrics, port = Metrics(), free_port()
    metrics.events.labels("applied").inc(3)
    server, thread = metrics.serve(port)
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            assert 'item_events_total{outcome="applied"} 3.0' in page.read().decode()
        assert server.server_address[0] == "127.0.0.1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_two_updaters_of_a_process_count_apart():
    one, two = Metrics(), Metrics()
    one.events.labels("late").inc()
    assert (one.count("late"), two.count("late")) == (1, 0)
