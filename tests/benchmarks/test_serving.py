"""The benchmark of serving: both sides score the same, and clients count what was answered."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.helpers.runs import train_ranker
from tests.serving.served import parsed, scorer_of
from torchrec_mm.benchmarks.online.load import load
from torchrec_mm.benchmarks.serving import drawn, row_a_candidate


def test_a_row_a_candidate_is_scored_as_the_request_is(market, tmp_path):
    scorer = scorer_of(train_ranker(market, tmp_path / "run", "simtier"))
    table = drawn(scorer, candidates=7, behaviours=5, seed=0)[0]
    rows = [{**row, "stars": [1] * 5, "action": [2] * 5} for row in table.to_pylist()]
    table = type(table).from_pylist(rows)
    apart = row_a_candidate(table)
    assert len(apart) == 7 and apart["behaviour_item_ids"][3] == table["behaviour_item_ids"][0]
    found = [scorer.probabilities(parsed(scorer, each)) for each in (table, apart)]
    assert found[0] == pytest.approx(found[1], abs=1e-6) and len(np.unique(found[0])) > 1


class Answer(BaseHTTPRequestHandler):
    """The server's status to whatever is asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *said: object) -> None:
        """Nothing."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.status = 200
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_clients_count_what_was_answered(server):
    port = server.server_address[1]
    found = load("127.0.0.1", port, "application/json", [b"{}", b"[]"], clients=2, seconds=0.2)
    assert found.requests_per_s > 0 and 0 < found.p50_ms <= found.p99_ms


def test_an_answer_that_is_no_score_ends_the_measurement(server):
    port, server.status = server.server_address[1], 503
    with pytest.raises(RuntimeError, match="the scorer answered .*503"):
        load("127.0.0.1", port, "application/json", [b"{}"], clients=1, seconds=0.2)
