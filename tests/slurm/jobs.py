"""The ranker on the small market, trained as a job of two nodes or without Slurm."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import localtime, strftime, time

from tests.helpers.forks import PATIENCE_S, run_on_two_ranks
from tests.helpers.runs import ROOT, ranker_flags
from tests.helpers.small_market import SmallMarket
from tests.slurm.cluster import ENDED, Cluster, wait_until
from tests.slurm.config import PARTITION

STEPS = 48
BATCH = 16
TRAIN_REQUESTS = STEPS * BATCH

TORCHX = [Path(sys.executable).with_name("torchx"), "run", "-s", "slurm"]
TORCHX_PARTITION = ["-cfg", f"partition={PARTITION}"]
PLAIN = [sys.executable, "-m", "torchx_components.slurm", "--partition", PARTITION]
TWO_NODES = ["-j", "2x1", "--cpu", "1", "--memMB", "2000", "--env", "GLOO_SOCKET_IFNAME=lo"]


def component(name: str) -> str:
    return f"{ROOT}/torchx_components/ranking.py:{name}"


def training_flags(market: SmallMarket, run_dir: Path) -> list[str]:
    return [*ranker_flags(market, run_dir, "simtier"), "--checkpoint_steps", "2"]


def environment(**more: str) -> dict[str, str]:
    """What a login shell in the repository has: the commands of its virtual environment."""
    binaries = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TORCHXCONFIG": str(ROOT / ".torchxconfig"),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def train_without_slurm(market: SmallMarket, run_dir: Path) -> None:
    """Two ranks under torchrun."""
    run_on_two_ranks("-m", "apps.train_ranker", *training_flags(market, run_dir))


@dataclass(frozen=True)
class Jobs:
    """Where jobs are submitted from, and their logs land."""

    cluster: Cluster
    folder: Path

    def submit(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment(SLURM_CONF=str(self.cluster.config)),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def torchx(self, name: str, *arguments: str) -> str:
        """Job id of a component under `torchx run`, which fails after it: it asks sacct."""
        done = self.submit(*TORCHX, *TORCHX_PARTITION, name, *arguments)
        handle = re.search(r"^slurm://\w+/(\d+)$", done.stdout, re.MULTILINE)
        assert handle and done.returncode == 1 and "'sacct'" in done.stderr, done.stderr
        return handle[1]

    def plain(self, name: str, *arguments: str) -> str:
        """Job id of a component under a plain script."""
        done = self.submit(*PLAIN, name, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ranks(self, *variables: str) -> dict[str, int]:
        """Process id by rank, of the ranks with such variables."""
        found = ((rank, self.cluster.processes(f"RANK={rank}", *variables)) for rank in "01")
        return {rank: pids[0] for rank, pids in found if pids}

    def wait(self, happens: Callable[[], bool]) -> None:
        try:
            wait_until(happens, PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def start_soon(self, job_id: str, restarts: int) -> None:
        """See the job start again, without the two minutes that Slurm would let it wait.

        Two seconds must pass: what starts in the second of the requeue is killed with it.
        """

        def started() -> bool:
            job = self.cluster.job(job_id)
            waits = job["JobState"] == "PENDING" and job["EligibleTime"] > time_in(10)
            if waits and job["Restarts"] == str(restarts):
                self.cluster.ask("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")
            return job["JobState"] in {"RUNNING", *ENDED} and job["Restarts"] == str(restarts)

        self.wait(started)

    def end(self, job_id: str) -> dict[str, str]:
        """Fields of the job once it is over."""
        self.wait(lambda: self.cluster.job(job_id)["JobState"] in ENDED)
        return self.cluster.job(job_id)

    def logs(self) -> str:
        return "\n".join(log.read_text()[-6000:] for log in sorted(self.folder.glob("slurm-*")))


def time_in(seconds: float) -> str:
    """A time from now, as Slurm writes it."""
    return strftime("%Y-%m-%dT%H:%M:%S", localtime(time() + seconds))
