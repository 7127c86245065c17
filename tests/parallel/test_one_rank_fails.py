"""One rank of two fails: both end, at once, and the user reads why, once.

As a module of its own this launches the cases, whose ranks are forked from it:
``python -m tests.parallel.test_one_rank_fails FOLDER``.
"""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from torchrec_mm import config
from torchrec_mm.benchmarks.harness import free_port
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import LONG_WORK_TIMEOUT, on_first_rank, process_group
from torchrec_mm.runs.stop import Stop

ROOT = Path(__file__).parents[2]
CASES = ("bug", "bug_of_first_alone", "mistake_of_all", "mistake_of_first", "mistake_of_second")
MISTAKE = "file x must be whole"


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict]:
    """What became of each case: the status of the first rank to end, and what was printed."""
    folder = tmp_path_factory.mktemp("cases")
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.test_one_rank_fails", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", ["bug", "bug_of_first_alone"])
def test_an_exception_ends_all_ranks_and_its_traceback_is_seen(told, case):
    assert told[case]["status"] == 1
    assert told[case]["printed"].count("ZeroDivisionError: ours") == 1
    assert "error: " not in told[case]["printed"]


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("mistake")])
def test_a_mistake_is_one_line_whoever_made_it_and_all_ranks_end(told, case):
    assert told[case] == {"status": 2, "printed": f"error: {MISTAKE}\n"}


def work(case: str) -> None:
    """What a rank does, in the middle of operations that the other does not finish."""
    with process_group() as worker:
        leave_in_flight(worker.rank == (0 if case.endswith("first") else 1))
        if case.startswith("bug"):
            of_thread = dist.new_group(backend="gloo")
            with Stop(timeout_s=1.0) as stop:
                stop.agreed()
                on_first_rank(fail if case == "bug_of_first_alone" else lambda: None)
                if worker.rank == 1:
                    ThreadPoolExecutor(1).submit(dist.barrier, of_thread)  # as checkpoints do
                    fail()
                dist.barrier()
        fails = {"mistake_of_first": (0,), "mistake_of_second": (1,)}.get(case, (0, 1))
        if worker.rank in fails:
            raise InputError(MISTAKE)
        dist.barrier()


def leave_in_flight(begins: bool) -> None:
    """An operation that one rank begins, which nothing refers to but the group itself."""
    together = dist.new_group(backend="gloo", timeout=LONG_WORK_TIMEOUT)
    if begins:
        dist.all_reduce(torch.zeros(1), group=together, async_op=True)


def fail() -> None:
    raise ZeroDivisionError("ours")


def launch(case: str, folder: Path) -> int:
    """Fork two ranks, end the other when one has failed, as torchrun does; the status of that one.

    A rank does not return: it leaves with the status of its command, as commands do.
    """
    port, ranks = free_port(), []
    for rank in range(2):
        ranks.append(os.fork())
        if not ranks[-1]:
            values = (rank, rank, 2, 2, "127.0.0.1", port)
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
            names += ("MASTER_ADDR", "MASTER_PORT")
            os.environ.update(zip(names, map(str, values), strict=True))
            os.dup2(os.open(folder / case, os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)
            config.FIRST_SPEAKS_S = 0.0 if case == "mistake_of_second" else 1e6
            config.PEER_SPEAKS_S = 1e6
            sys.exit(config.run(lambda argv: work(case), []))
    first, status = os.wait()
    (other,) = set(ranks) - {first}
    os.kill(other, signal.SIGTERM)
    os.waitpid(other, 0)
    return os.waitstatus_to_exitcode(status)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {case: {"status": launch(case, folder)} for case in CASES}
    for case, told in found.items():
        told["printed"] = (folder / case).read_text()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
