"""Jobs that heal: a rank or a whole node is killed, the rest goes on by itself, nothing is lost."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.runs import ROOT, evaluate, lines_of, ranker_flags
from tests.small_market import SmallMarket, write_small_market
from tests.train.test_kill import (
    LOSS_TOLERANCE,
    Launch,
    environment_of,
    epochs_of,
    last_step,
    saving,
)

KILLS = min(int(os.environ.get("TORCHREC_MM_KILLS", "2")), 5)
STEPS_PER_KILL = 8
EPOCHS = 2
BATCH = 16
TRAIN_REQUESTS = BATCH * STEPS_PER_KILL * (KILLS + 1) // EPOCHS
START_S = 6  # in which processes import, meet, and read
PATIENCE_S = 120
BESIDE_PYTHON = Path(sys.executable).parent  # torchx and the torchrun that it calls
PATH = f"{BESIDE_PYTHON}{os.pathsep}{os.environ['PATH']}"

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU"),
]


def flags_of(market: SmallMarket, run_dir: Path) -> list[str]:
    flags = [*ranker_flags(market, run_dir, "simtier"), "--epochs", str(EPOCHS)]
    return [*flags, "--test_auc", "true", "--checkpoint_steps", "2"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_listened_to(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


class Job:
    """A command with all that it starts, its processes known by a mark in their environment."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.mark = f"TORCHREC_MM_JOB={uuid.uuid4().hex}"
        self.log = log
        name, _, value = self.mark.partition("=")
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={
                    **os.environ,
                    "PATH": PATH,
                    "OMP_NUM_THREADS": "1",
                    name: value,
                    **environment,
                },
                stdout=out,
                stderr=out,
            )

    def processes(self, of: str = "") -> list[int]:
        """All that live, or those with a variable in their environment."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = environment_of(entry.name).split(b"\0")
            except OSError:  # gone, or somebody else's
                continue
            is_named = any(variable.startswith(f"{of}=".encode()) for variable in environment)
            if self.mark.encode() in environment and (not of or is_named):
                found.append(int(entry.name))
        return found

    def ranks(self) -> list[int]:
        return self.processes("RANK")

    def wait_until(self, happens: Callable[[], bool]) -> None:
        """Look again and again; fail when the job ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not happens():
            assert self.process.poll() is None, self.log.read_text()[-6000:]
            assert time.monotonic() < deadline, self.log.read_text()[-6000:]
            time.sleep(0.002)

    def finish(self) -> None:
        """It ends well, and nothing of it lives on."""
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()[-6000:]
        assert not self.processes()


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"), train=TRAIN_REQUESTS)


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory) -> Path:
    """A run on two ranks that nobody killed."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    Launch(market, run_dir, 2).finish()
    return run_dir


def kill_one(job: Job, run_dir: Path, number: int, chance: random.Random) -> None:
    """A rank dies: before anything is saved or at a start, in a save, or at some step."""
    job.wait_until(lambda: len(job.ranks()) == 2)
    ranks = job.ranks()
    if number % 2:
        target = STEPS_PER_KILL * number + chance.randrange(STEPS_PER_KILL)
        job.wait_until(lambda: last_step(run_dir) >= target)
        if chance.random() < 0.5:
            job.wait_until(lambda: saving(run_dir))
    else:
        moment = time.monotonic() + chance.uniform(0, START_S)
        job.wait_until(lambda: time.monotonic() >= moment)
    os.kill(chance.choice(ranks), signal.SIGKILL)
    job.wait_until(lambda: not set(ranks) & set(job.ranks()))


def test_a_job_whose_ranks_are_killed_ends_by_itself_with_the_same_bits(market, whole, tmp_path):
    run_dir, chance = tmp_path / "killed", random.Random(3)
    component = ["torchx_components/ranking.py:train_ranker", "-j", "1x2", "--max_restarts", "10"]
    launch = [str(BESIDE_PYTHON / "torchx"), "run", "-s", "local_cwd", *component, "--"]
    job = Job([*launch, *flags_of(market, run_dir)], tmp_path / "log")
    for number in range(KILLS):
        kill_one(job, run_dir, number, chance)
    job.finish()
    assert lines_of(run_dir, "step") == lines_of(whole, "step")
    assert epochs_of(run_dir) == epochs_of(whole)
    figures = [evaluate(market, run) for run in (run_dir, whole)]
    for metrics in figures:
        metrics.pop("checkpoint")
    assert figures[0] == figures[1]
    hidden = {path.name for path in tmp_path.rglob(".*")}
    assert hidden <= {".metadata"}, hidden  # of a whole checkpoint


def node(port: int, market: SmallMarket, run_dir: Path, log: Path) -> Job:
    """One of two nodes of one rank, which go on with one node where the other is gone."""
    quick = "last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "job"]
    launcher = [*meeting, "--rdzv-conf", quick, "--nnodes", "1:2", "--nproc-per-node", "1"]
    flags = ["-m", "apps.train_ranker", *flags_of(market, run_dir), "--resume", "true"]
    return Job(
        [sys.executable, "-m", "torch.distributed.run", *launcher, "--max-restarts", "3", *flags],
        log,
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
    )


def test_a_job_that_lost_a_node_goes_on_with_the_other(market, whole, tmp_path):
    run_dir, port = tmp_path / "killed", free_port()
    host = node(port, market, run_dir, tmp_path / "host")
    host.wait_until(lambda: is_listened_to(port))
    guest = node(port, market, run_dir, tmp_path / "guest")
    host.wait_until(lambda: last_step(run_dir) >= STEPS_PER_KILL)
    (rank,) = guest.ranks()
    assert b"\0WORLD_SIZE=2\0" in environment_of(str(rank))
    for process in guest.processes():
        os.kill(process, signal.SIGKILL)
    host.finish()
    assert guest.process.wait(PATIENCE_S) == -signal.SIGKILL
    ours, theirs = lines_of(run_dir, "step"), lines_of(whole, "step")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], rel=LOSS_TOLERANCE
    )
    assert evaluate(market, run_dir)["log_loss"] == pytest.approx(
        evaluate(market, whole)["log_loss"], rel=LOSS_TOLERANCE
    )
