"""torchrun whose exit status is that of the rank that failed, and which knows what is final.

python -m torchrec_mm.stages.torchrun --nproc-per-node 2 -m apps.train_ranker ...

Statuses: 0 all ranks succeeded; 2 the user's mistake, which rank 0 has named in one line; 128 + n
ended by signal n; else what the rank said. Other failures start the group again, as often as
``--max-restarts`` says: a mistake stays a mistake, and a training that saved and stopped on SIGTERM
was asked to.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import torch.distributed.launcher.api as launcher
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import main as torchrun

MISTAKE = 2
STOPPED = 128 + signal.SIGTERM
FINAL = (MISTAKE, STOPPED)
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Agent(LocalElasticAgent):
    """Starts ranks again, unless they left with a status that is final."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.is_failed() and status_of(result.failures) in FINAL:
            self._remaining_restarts = 0
        return result


def main(argv: Sequence[str]) -> int:
    """Launch, wait, and return the exit status."""
    _end_with_parent()
    # Torchrun's store outlives a restart; ranks would find in it where their peers were before
    # (pytorch/pytorch#135712).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    launcher.LocalElasticAgent = Agent  # type: ignore[misc]  # torch has no other way in
    try:
        torchrun(list(argv))
    except ChildFailedError as error:
        status = status_of(error.failures)
        if status not in FINAL:
            print(error, file=sys.stderr)
        return status
    except SignalException as error:
        return 128 + error.sigval
    return 0


def status_of(failures: Mapping[int, ProcessFailure]) -> int:
    """Of ranks of this node that did not succeed, one at least, the status that says why.

    Torchrun ends the others of a rank that failed with SIGTERM, and they say so: that is the reason
    only where nobody has another.
    """
    codes = [failure.exitcode for failure in failures.values()]
    statuses = [code if code >= 0 else 128 - code for code in codes]  # as a shell has it
    if MISTAKE in statuses:
        return MISTAKE
    return next((status for status in statuses if status != STOPPED), STOPPED)


def _end_with_parent() -> None:
    """Be sent SIGTERM when the process that started this one is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
