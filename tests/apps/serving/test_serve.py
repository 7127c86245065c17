"""apps.serve as a process: it says where it listens, answers, and ends when it is told to."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

import apps.serve
from tests.apps.serving.processes import WAIT_S, served
from tests.helpers.runs import train_ranker
from tests.serving.served import scorer_of, table_of
from torchrec_mm.serving.serve import listening

KILLS = min(5, int(os.environ.get("TORCHREC_MM_KILLS", "2")))  # each is a server that starts


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("served") / "run", "simtier")


@pytest.mark.slow
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


@pytest.mark.slow
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


def ask(where: str, row: dict, times: int) -> list[str]:
    """The ids of as many requests."""
    body = {"requests": [row] * times}
    return httpx.post(f"{where}/score", json=body, timeout=WAIT_S).json()["request_ids"]


@pytest.mark.slow
def test_what_waits_for_the_log_is_in_it_when_the_server_has_ended(run_dir, market, tmp_path):
    row = table_of(scorer_of(run_dir), market.data / "requests" / "test").to_pylist()[0]
    with served(run_dir, "--log", str(tmp_path / "log"), "--log_s", "3600") as (process, where):
        ids = ask(where, row, 2) + ask(where, row, 3)
        assert not [*(tmp_path / "log").iterdir()]
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)
    (file,) = (tmp_path / "log").iterdir()
    assert pq.read_table(file)["request_id"].to_pylist() == ids


@pytest.mark.kill
def test_a_killed_server_leaves_whole_files_of_all_but_the_last_requests(run_dir, market, tmp_path):
    row = table_of(scorer_of(run_dir), market.data / "requests" / "test").to_pylist()[0]
    log, ids, least = tmp_path / "log", [], 0
    for _ in range(KILLS):
        with served(run_dir, "--log", str(log), "--log_s", "0.05") as (process, where):
            while len([*log.glob("*.parquet")]) < least + 3:
                ids += ask(where, row, 2)
            process.kill()
            process.wait(WAIT_S)
        least = len([*log.glob("*.parquet")])
        found = pq.read_table(log)["request_id"].to_pylist()
        assert len({*found}) == len(found) and {*found} <= {*ids}


@pytest.mark.kill
def test_no_behaviour_that_was_acknowledged_is_lost_when_the_server_is_killed(
    run_dir, market, tmp_path
):
    (row,) = table_of(scorer_of(run_dir), market.data / "requests" / "test").to_pylist()[:1]
    bare = {name: row[name] for name in ("candidate_item_ids", "city", "page")}
    user, wanted = 987, {"behaviour_item_ids": [], "stars": [], "action": []}
    for number in range(max(2, KILLS)):
        with served(run_dir, "--additions", str(tmp_path / "added")) as (process, where):
            asked = [bare | {"user_id": user}, bare | wanted | {"user_id": user}]
            said = httpx.post(f"{where}/score", json={"requests": asked}, timeout=WAIT_S).json()
            stored, brought = said["click_probabilities"]
            assert stored == pytest.approx(brought, abs=1e-6)
            item = row["candidate_item_ids"][0]
            one = {"behaviour_item_ids": [item], "stars": [number], "action": [1]}
            times = {"behaviour_timestamps": [1_700_000_000 + number]}
            body = {"user_id": user, **one, **times}
            for outcome in ("added", "known"):
                found = httpx.post(f"{where}/behaviours", json=body, timeout=WAIT_S).json()
                assert found == {"added": 0, "known": 0, "older": 0} | {outcome: 1}
            wanted = {name: [*wanted[name], *one[name]] for name in wanted}
            process.kill()
            process.wait(WAIT_S)


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
        (["--log_s", "0"], "log_s must be above 0, got 0"),
        (["--log_share", "1.5"], "log_share must be above 0, at most 1, got 1.5"),
        (["--log_s", "5"], "log_s must not be given without log, got 5"),
        (["--log_share", "0.5"], "log_share must not be given without log, got 0.5"),
        (["--parity_s", "5"], "parity_s must not be given without parity_share, got 5"),
        (["--port", "70000"], "port must be in [0, 65535], got 70000"),
        (["--max_candidates", "0"], "max_candidates must be at least 1, got 0"),
        (["--checkpoint", "best", "--reload_s", "1"], "reload_s must be 0 with checkpoint best"),
        (["--checkpoint", "77"], "checkpoint must be latest, best or one of"),
    ],
)
def test_bad_flags_are_refused_in_one_line(run_dir, refused, flags, said):
    assert said in refused(apps.serve.main, ["--run_dir", run_dir, *flags])
