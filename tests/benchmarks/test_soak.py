"""The benchmark of a long time under load: who counts as disturbed, and what comes meanwhile."""

import asyncio
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.test_serving import server  # noqa: F401
from tests.helpers.runs import train_ranker
from torchrec_mm.benchmarks.harness import in_fresh_process
from torchrec_mm.benchmarks.online.arrivals import Arrivals, _Clients, arrive
from torchrec_mm.benchmarks.online.checkpoints import put_next, write_changed
from torchrec_mm.benchmarks.online.load import message_of
from torchrec_mm.benchmarks.online.memory import Watched
from torchrec_mm.benchmarks.soak import SoakConfig, Soaked, parted, reload_seconds
from torchrec_mm.errors import InputError
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

JSON = "application/json"


def test_clients_come_when_they_are_due_and_failures_are_counted(server):  # noqa: F811
    port = server.server_address[1]
    found = arrive("127.0.0.1", port, JSON, [b"{}"], rate=200, seconds=0.5, seed=1)
    assert len(found.due_s) == 100 and found.is_scored.all()
    assert (np.diff(found.due_s) > 0).all() and (found.took_s > 0).all()
    server.status = 503
    found = arrive("127.0.0.1", port, JSON, [b"{}"], rate=200, seconds=0.1, seed=1)
    assert len(found.due_s) == 20 and not found.is_scored.any()


def test_clients_of_a_server_that_is_gone_fail_and_go_on():
    found = arrive("127.0.0.1", 1, JSON, [b"{}"], rate=200, seconds=0.1, seed=1)
    assert len(found.due_s) == 20 and not found.is_scored.any()


def test_a_connection_that_was_closed_while_it_was_idle_is_not_asked_again():
    async def answer_once(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async def ask_twice() -> list[bool]:
        async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as listening:
            clients, message = _Clients(*listening.sockets[0].getsockname()), message_of(JSON, b"")
            first = await clients._answered(message)
            ((reader, _),) = clients._idle
            while not reader.at_eof():
                await asyncio.sleep(0)
            again = await clients._answered(message)
            clients._idle[0][1].close()
            return [first, again]

    assert asyncio.run(ask_twice()) == [True, True]


def soaked(due: list[float], put: dict[str, float], seen: dict[str, float]) -> Soaked:
    took, scored = np.arange(len(due)) + 1.0, np.ones(len(due), bool)
    return Soaked(1.0, Arrivals(np.array(due), took, scored, seen), put, 1.0, 1.0)


def test_disturbed_are_requests_from_when_a_checkpoint_is_put_there_until_it_scores():
    run = soaked([0, 1, 2, 3, 4, 5], {"a": 1.5, "b": 3.5}, {"a": 2.5, "b": 4.0, "0": 0.0})
    during, between = parted(run)
    assert (during.tolist(), between.tolist()) == ([3, 5], [1, 2, 4, 6])
    assert reload_seconds(run) == [1.0, 0.5]


def test_a_checkpoint_whose_successor_scored_first_lasted_until_then():
    run = soaked([0], {"a": 1.0, "b": 2.0}, {"0": 0.0, "b": 4.0})
    assert reload_seconds(run) == [3.0, 2.0]


def test_a_checkpoint_that_never_scored_ends_the_measurement():
    with pytest.raises(RuntimeError, match="apps.serve did not take b"):
        parted(soaked([0], {"a": 1.0, "b": 2.0}, {"a": 1.0}))


def test_checkpoints_come_one_by_one_whole_and_a_little_changed(market, tmp_path):
    run_dir, aside = tmp_path / "run", tmp_path / "aside"
    shutil.copytree(train_ranker(market, tmp_path / "trained", "id"), run_dir)
    before = find_checkpoint(run_dir / "checkpoints")
    in_fresh_process(write_changed, run_dir, aside, 2)
    names = [put_next(aside, run_dir) for _ in range(2)]
    steps = [before.position.step + number for number in (1, 2)]
    assert names == [f"step-{step:08d}" for step in steps]
    there = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert there == names  # what scores now, and what comes
    after = find_checkpoint(run_dir / "checkpoints")
    assert after.position.step == steps[1]
    tensors = read_checkpoint(after.folder, "model.")
    assert tensors and all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_memory_is_that_of_the_process(monkeypatch):
    monkeypatch.setattr("torchrec_mm.benchmarks.online.memory.EVERY_S", 0.01)
    begin = time.time()
    with Watched(os.getpid()) as memory:
        while np.isnan(found := memory.mean_mb(begin, time.time())):
            pass
    (kb,) = re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found == pytest.approx(int(kb) * 1024 / 1e6, rel=0.2)
    assert np.isnan(memory.mean_mb(0, 1))


def test_reloads_that_would_never_come_are_refused():
    with pytest.raises(InputError, match="reload_every_s must be below minutes, got 60"):
        SoakConfig(minutes=1)
