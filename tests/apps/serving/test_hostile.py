"""Requests that mean no good: each has its answer in one line, and nobody else notices.

TORCHREC_MM_ALL=1 draws 2 000 requests by the OpenAPI page, else a tenth of it.
"""

import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.apps.serving.processes import WAIT_S, served
from tests.helpers.runs import train_ranker
from tests.serving.served import scorer_of, table_of
from torchrec_mm.serving.wire import ARROW, JSON

pytestmark = pytest.mark.slow

CASES = 2000 if os.environ.get("TORCHREC_MM_ALL") == "1" else 200
MOST_BYTES = 100_000
CHECKED = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "negative_data_rejection"),
)
DRAWN = settings(
    max_examples=CASES, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@dataclass(frozen=True)
class Service:
    """A process that scores; a good request, in both forms, and its answer."""

    where: str
    row: dict
    arrow: bytes
    answer: list[float]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.where.removeprefix("http://").split(":")
        return host, int(port)

    def scores(self) -> list[float]:
        """Of the good request."""
        said = httpx.post(f"{self.where}/score", json=self.row, timeout=WAIT_S)
        assert said.status_code == 200, said.text
        return said.json()["click_probabilities"][0]


@pytest.fixture(scope="module")
def service(market, tmp_path_factory) -> Iterator[Service]:
    run_dir = train_ranker(market, tmp_path_factory.mktemp("served") / "run", "simtier")
    table = table_of(scorer_of(run_dir), market.data / "requests" / "test").slice(0, 1)
    (row,) = table.to_pylist()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    flags = ("--timeout_s", "5", "--max_body_bytes", str(MOST_BYTES))
    flags += ("--max_behaviours", "100")  # so that lists that are too long fit into a body
    flags += ("--additions", str(tmp_path_factory.mktemp("added")))
    with served(run_dir, *flags) as (process, where):
        alone = Service(where, row, sink.getvalue(), [])
        yield Service(where, row, sink.getvalue(), alone.scores())
        assert process.poll() is None  # whatever was asked of it


def refused_in_one_line(answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500 or answer.status_code == 503, answer.text
    said = json.loads(answer.content)["error"]
    assert said and "\n" not in said


@contextmanager
def neighbour(service: Service) -> Iterator[None]:
    """Asks for its scores again and again meanwhile; none may differ from those it has alone."""
    ended, found = threading.Event(), []

    def ask() -> None:
        while not ended.is_set():
            found.append(service.scores())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        while not found and asking.is_alive():
            pass
        yield
    finally:
        ended.set()
        asking.join()
    assert found and all(each == pytest.approx(service.answer, abs=1e-6) for each in found)


@pytest.mark.parametrize("path", ["/score", "/behaviours"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_requests_drawn_by_the_openapi_page_are_answered_as_it_says(
    service, tmp_path, monkeypatch, mode, path
):
    monkeypatch.chdir(tmp_path)  # for what the library may write
    load_all_checks()
    page = schemathesis.openapi.from_url(f"{service.where}/openapi.json")
    page.config.checks.negative_data_rejection.expected_statuses.append("413")
    checks = CHECKS.get_by_names(CHECKED)

    @settings(DRAWN, max_examples=CASES // 4)  # four times: two paths, two modes
    @given(case=page[path]["POST"].as_strategy(generation_mode=mode))
    def check(case) -> None:
        answer = case.call_and_validate(checks=checks, timeout=WAIT_S)
        if answer.status_code != 200:
            assert b"\n" not in json.loads(answer.content)["error"].encode()

    with neighbour(service):
        check()


def test_an_arrow_stream_with_changed_bytes_is_scored_or_refused(service):
    places = st.integers(0, len(service.arrow) - 1)

    @settings(DRAWN, max_examples=CASES // 4)
    @given(
        changes=st.dictionaries(places, st.integers(0, 255), max_size=4),
        length=st.just(len(service.arrow)) | places,
    )
    def check(changes, length) -> None:
        body = bytearray(service.arrow)
        for place, byte in changes.items():
            body[place] = byte
        answer = client.post(
            f"{service.where}/score", content=bytes(body[:length]), headers={"content-type": ARROW}
        )
        if answer.status_code != 200:
            refused_in_one_line(answer)

    with neighbour(service), httpx.Client(timeout=WAIT_S) as client:
        check()


def chunks(count: int) -> Iterator[bytes]:
    """A body whose length nobody says before."""
    for _ in range(count):
        yield b" " * 10_000


@pytest.mark.parametrize("kind", [JSON, ARROW])
@pytest.mark.parametrize(
    "body", [lambda: b" " * (MOST_BYTES + 1), lambda: chunks(20)], ids=["said", "unsaid"]
)
def test_a_body_that_is_too_large_is_refused(service, kind, body: Callable):
    with neighbour(service):
        answer = httpx.post(
            f"{service.where}/score", content=body(), headers={"content-type": kind}, timeout=WAIT_S
        )
    assert answer.status_code == 413
    refused_in_one_line(answer)


def test_connections_whose_heads_never_end_are_closed(service):
    with neighbour(service):
        slow = [socket.create_connection(service.address, WAIT_S) for _ in range(50)]
        for number, each in enumerate(slow):
            each.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\nx-more: "[: number % 40])
        assert [each.recv(1000) for each in slow] == [b""] * 50
    for each in slow:
        each.close()


def test_a_head_that_never_ends_after_a_request_is_closed_too(service):
    with socket.create_connection(service.address, WAIT_S) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in slow.recv(1000)
        slow.sendall(b"GET /health HTT")
        while said := slow.recv(1000):
            assert b"HTTP/1.1 200" not in said


def test_clients_that_leave_before_they_have_their_answer_harm_no_neighbour(service):
    body = json.dumps(service.row).encode()
    head = f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with neighbour(service):
        for number in range(100):
            with socket.create_connection(service.address, WAIT_S) as leaving, suppress(OSError):
                leaving.sendall((head + body)[: len(head) + len(body) * (number % 5) // 4])
