"""Stages one after another, each through torchrun on all nodes.

Every node walks the same chain. No node leaves a stage's torchrun with status 0 before all nodes'
ranks have succeeded, and none is past a stage that another has yet to look at: that one would miss
it in its rendezvous. So all nodes find the same stages whole, and nobody has to tell them.
"""

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from torchrec_mm.commands import module_of
from torchrec_mm.config import flag_words
from torchrec_mm.stages.stage import Stage

# Seconds that a node waits for the first one to listen, and then for all to be there.
RENDEZVOUS = "read_timeout=600,join_timeout=1800"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How stages are launched.

    nodes: that each run this. processes: ranks a node. host, port: of the first node; each stage
    meets at a port of its own, lest a fast node finds the store of the stage before, which is about
    to end. max_restarts: of the ranks of a stage.
    """

    nodes: int = 1
    processes: int = 1
    host: str = "localhost"
    port: int = 0
    max_restarts: int = 3

    def command(self, stage: Stage, number: int) -> list[str]:
        """What runs the ``number``-th stage on this node."""
        endpoint = f"{self.host}:{self.port + number if self.nodes > 1 else 0}"
        return [
            *(sys.executable, "-m", "torchrec_mm.stages.torchrun"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint),
            *("--rdzv-id", stage.folder.name, "--rdzv-conf", RENDEZVOUS),
            *("--nnodes", str(self.nodes)),
            *("--nproc-per-node", "1" if stage.alone else str(self.processes)),
            *("--max-restarts", str(self.max_restarts)),
            *("-m", module_of(stage.app), *flag_words(stage.flags)),
        ]

    def environment(self, stage: Stage) -> dict[str, str]:
        """Of that command: to several ranks torchrun would give one thread each."""
        if stage.alone or self.processes == 1:
            return dict(os.environ)
        threads = max(1, len(os.sched_getaffinity(0)) // self.processes)
        return {"OMP_NUM_THREADS": str(threads)} | os.environ


def run_stage(stage: Stage, launch: Launch, number: int) -> tuple[int, bool]:
    """Make what the stage makes, if it is not whole.

    SIGTERM is passed on to the stage.

    Returns:
        its exit status, 128 + n where signal n ended it; and whether it was skipped.
    """
    with _locked(stage.folder.parent, launch.nodes) as lock:
        if stage.is_whole:
            return 0, True
        stage.clear_aside()
        start = time.monotonic()
        status = _call(launch.command(stage, number), launch.environment(stage), lock)
        if status == 0:
            stage.finish(time.monotonic() - start)
    return status, False


def _call(command: list[str], environment: dict[str, str], lock: int | None) -> int:
    """Run a command to its end, SIGTERM passed on."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.send_signal(signal.SIGTERM)

    child = Popen(command, env=environment, pass_fds=() if lock is None else (lock,))
    before = signal.signal(signal.SIGTERM, stop)
    try:
        status = child.wait()
    except KeyboardInterrupt:  # the terminal has told the child, too
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        return 128 + signal.SIGTERM
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _locked(folder: Path, nodes: int) -> Iterator[int | None]:
    """Alone in a folder, until the stage's torchrun has ended too, should this process be killed.

    The nodes of one job work in it together, so between several there is no lock; nor on a file
    system that has none.
    """
    if nodes > 1:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
