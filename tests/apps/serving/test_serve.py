"""apps.serve as a process: it says where it listens, answers, and ends when it is told to."""

import signal
import socket
from pathlib import Path

import httpx
import pytest

import apps.serve
from tests.apps.serving.processes import WAIT_S, served
from tests.helpers.runs import train_ranker
from tests.serving.served import scorer_of, table_of
from torchrec_mm.serving.serve import listening


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("served") / "run", "simtier")


def test_it_scores_over_http_and_ends_quietly_when_told_to(run_dir, market):
    row = table_of(scorer_of(run_dir), market.data / "requests" / "test").to_pylist()[0]
    with served(run_dir) as (process, where):
        assert where.startswith("http://127.0.0.1:")
        said = httpx.post(f"{where}/score", json=row, timeout=WAIT_S)
        (found,) = said.json()["click_probabilities"]
        assert len(found) == len(row["candidate_item_ids"])
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)
        assert process.returncode == -signal.SIGTERM
        assert "Traceback" not in process.communicate()[1]


def test_a_body_that_never_ends_is_refused_and_others_are_answered_meanwhile(run_dir, market):
    row = table_of(scorer_of(run_dir), market.data / "requests" / "test").to_pylist()[0]
    with served(run_dir, "--timeout_s", "3") as (_, where):
        host, port = where.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), WAIT_S) as slow:
            slow.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            assert httpx.post(f"{where}/score", json=row, timeout=WAIT_S).status_code == 200
            assert b"408" in slow.recv(1000)
        with socket.create_connection((host, int(port)), WAIT_S) as gone:
            gone.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert httpx.post(f"{where}/score", json=row, timeout=WAIT_S).status_code == 200


def test_an_address_that_is_taken_is_refused_in_one_line(run_dir, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(apps.serve.main, ["--run_dir", run_dir, "--port", port])
    assert "host and port must be free to listen at" in line and str(port) in line


def test_answers_are_not_held_back_until_the_client_has_acknowledged_their_heads():
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--timeout_s", "0"], "timeout_s must be above 0, got 0"),
        (["--port", "70000"], "port must be in [0, 65535], got 70000"),
        (["--max_candidates", "0"], "max_candidates must be at least 1, got 0"),
        (["--checkpoint", "best", "--reload_s", "1"], "reload_s must be 0 with checkpoint best"),
        (["--checkpoint", "77"], "checkpoint must be latest, best or one of"),
    ],
)
def test_bad_flags_are_refused_in_one_line(run_dir, refused, flags, said):
    assert said in refused(apps.serve.main, ["--run_dir", run_dir, *flags])
