"""A real Slurm cluster on this machine: munged, one controller, two nodes, no accounting.

Ports, keys, spools and logs are the cluster's own, in one folder. Node names are addresses of the
loopback, so that jobs find them without a line in /etc/hosts. Nothing needs root.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.forks import PATIENCE_S
from tests.slurm.config import NODES, write_config

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}


@dataclass(frozen=True)
class Cluster:
    """What clients need: ``environment`` makes them talk to this cluster."""

    folder: Path
    servers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.config)}

    def ask(self, *command: str) -> str:
        """What a client prints; its complaint fails the test."""
        how = {"capture_output": True, "text": True, "timeout": PATIENCE_S}
        done = subprocess.run(command, env=self.environment, **how)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """Fields of a job; of the first part of a heterogeneous one."""
        lines = self.ask("scontrol", "show", "job", "-o", job_id).splitlines()
        return dict(re.findall(r"(\S+?)=(\S*)", lines[0]))

    def processes(self, *variables: str) -> list[int]:
        """Ids of this cluster's processes that have these variables, such as RANK=1."""
        wanted = {f"SLURM_CONF={self.config}", *variables}
        pids = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in pids if has(pid, wanted)]

    def logs(self) -> str:
        return "\n".join(log.read_text()[-2000:] for log in sorted(self.folder.glob("*.log")))


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for the block; afterwards none of its processes is left, nor of its jobs."""
    cluster = Cluster(folder)
    write_config(folder)
    try:
        start(cluster)
        yield cluster
    finally:
        stop(cluster)


def start(cluster: Cluster) -> None:
    """Start the servers, in the foreground of sessions of their own, and wait for the nodes."""
    folder = cluster.folder
    files = {name: folder / f"munge.{name}" for name in ("socket", "key", "pid", "log", "seed")}
    places = [f"--{name}-file={files[name]}" for name in ("key", "pid", "log", "seed")]
    # --force: a folder under /tmp, which others may write to, is no worry for a test.
    serve(cluster, "munged", "--foreground", "--force", f"--socket={files['socket']}", *places)
    wait_until(files["socket"].exists, PATIENCE_S)
    serve(cluster, "slurmctld", "-D")
    for name in NODES:
        (folder / f"spool-{name}").mkdir()
        serve(cluster, "slurmd", "-D", "-N", name)
    try:
        wait_until(lambda: idle_nodes(cluster) == len(NODES), PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f"the cluster did not start:\n{cluster.logs()}") from error


def serve(cluster: Cluster, *command: str) -> None:
    """Start a server, which dies with this process if nothing stops it before."""
    with (cluster.folder / f"{command[0]}.log").open("a") as log:
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    cluster.servers.append(server)


def idle_nodes(cluster: Cluster) -> int:
    asked = subprocess.run(
        ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"],
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    return len(asked.stdout.split())


def stop(cluster: Cluster) -> None:
    """Kill servers, jobs and what jobs started: each has the cluster's SLURM_CONF."""

    def none_left() -> bool:
        left = cluster.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not left

    wait_until(none_left, PATIENCE_S)
    for server in cluster.servers:
        server.wait(PATIENCE_S)


def has(pid: int, variables: set[str]) -> bool:
    """Whether a process was started with these variables."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's
        return False
    return variables <= set(environment.decode(errors="replace").split("\0"))


def wait_until(happens: Callable[[], bool], deadline_s: float) -> None:
    """Look again and again until it happens."""
    deadline = time.monotonic() + deadline_s
    while not happens():
        assert time.monotonic() < deadline, f"not within {deadline_s} s"
        time.sleep(0.05)
