"""Jobs that heal: a rank or a whole node is killed, the rest goes on by itself, nothing is lost."""

import json
import os
import random
import shlex
import signal
import socket
from contextlib import suppress
from pathlib import Path

from tests.helpers.forks import PATIENCE_S
from tests.helpers.runs import last_step
from tests.helpers.small_market import SmallMarket
from tests.runs import killed
from tests.runs.killed import (
    MARKS,
    RESUME,
    STEPS_PER_KILL,
    Launched,
    assert_learned_alike,
    assert_same_bits,
    saving,
    training,
)
from torchx_components.ranking import train_ranker

KILLS = min(killed.KILLS, 5)

pytestmark = MARKS


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_listened_to(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


class Job(Launched):
    """A torchrun with all that it starts: the processes that work in a folder of its own."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        folder.mkdir()
        self.folder = folder
        environment = {**os.environ, **environment}
        super().__init__(folder.with_suffix(".log"), *words, cwd=folder, env=environment)

    def processes(self) -> list[int]:
        """All that live."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone, or somebody else's
                if (entry / "cwd").readlink() == self.folder:
                    found.append(int(entry.name))
        return found

    def finish(self) -> None:
        """It ends well, and nothing of it lives on."""
        super().finish()
        assert not self.processes()


def starts(run_dir: Path) -> list[dict]:
    """What is known of each start that came as far as to train."""
    log = run_dir / "environment.json"
    return json.loads(log.read_text()) if log.is_file() else []


def kill_one(job: Job, run_dir: Path, number: int, chance: random.Random) -> None:
    """A rank dies: at a start, before anything is saved or later; in a save, or at some step."""
    job.wait_until(lambda: len(job.ranks()) == 2)
    ranks = job.ranks()
    if number % 2:
        target = STEPS_PER_KILL * number + chance.randrange(STEPS_PER_KILL)
        job.wait_until(lambda: last_step(run_dir) >= target)
        if chance.random() < 0.5:
            job.wait_until(lambda: saving(run_dir))
    elif chance.random() < 0.5:
        before = len(starts(run_dir))
        job.wait_until(lambda: len(starts(run_dir)) > before)
    os.kill(chance.choice(ranks), signal.SIGKILL)
    job.wait_until(lambda: not set(ranks) & set(job.ranks()))


def test_a_job_whose_ranks_are_killed_ends_alone_with_the_same_bits(long_market, whole, tmp_path):
    run_dir, chance = tmp_path / "killed", random.Random(3)
    _, _, *flags = training(long_market, run_dir)
    (role,) = train_ranker(*flags, j="1x2", max_restarts=10).roles
    torchrun, *words = shlex.split(role.args[-1])
    assert torchrun == "torchrun"
    job = Job(tmp_path / "job", *words, **role.env, PET_LOG_DIR=str(tmp_path / "logs"))
    for number in range(KILLS):
        kill_one(job, run_dir, number, chance)
    job.finish()
    assert_same_bits(long_market, run_dir, whole)
    hidden = {path.name for path in tmp_path.rglob(".*")}
    assert hidden <= {".metadata"}, hidden  # of a whole checkpoint


def node(folder: Path, port: int, market: SmallMarket, run_dir: Path) -> Job:
    """One of two nodes of one rank, which go on with one node where the other is gone."""
    quick = "last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "job"]
    launcher = [*meeting, "--rdzv-conf", quick, "--nnodes", "1:2", "--nproc-per-node", "1"]
    words = [*launcher, "--max-restarts", "3", *training(market, run_dir), *RESUME]
    return Job(folder, *words, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")


def test_a_job_that_lost_a_node_goes_on_with_the_other(long_market, whole, tmp_path):
    run_dir, port = tmp_path / "killed", free_port()
    host = node(tmp_path / "host", port, long_market, run_dir)
    host.wait_until(lambda: is_listened_to(port))
    guest = node(tmp_path / "guest", port, long_market, run_dir)
    host.wait_until(lambda: last_step(run_dir) >= STEPS_PER_KILL)
    assert len(guest.ranks()) == 1
    for process in guest.processes():
        os.kill(process, signal.SIGKILL)
    host.finish()
    assert guest.process.wait(PATIENCE_S) == -signal.SIGKILL
    assert [start["world_size"] for start in starts(run_dir)] == [2, 1]
    assert_learned_alike(long_market, run_dir, whole)
