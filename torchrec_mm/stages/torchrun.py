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
from collections.abc import Sequence

import torch.distributed.launcher.api as launcher
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

MISTAKE = 2
STOPPED = 128 + signal.SIGTERM
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Agent(LocalElasticAgent):
    """Starts ranks again, unless they left with a status that is final."""

    def _monitor_workers(self, worker_group):
        result = super()._monitor_workers(worker_group)
        statuses = {status_of(failure.exitcode) for failure in result.failures.values()}
        if statuses & {MISTAKE, STOPPED}:
            self._remaining_restarts = 0
        return result


def main(argv: Sequence[str]) -> int:
    """Launch, wait, and return the exit status."""
    _end_with_parent()
    # Torchrun's store outlives a restart; ranks would find in it where their peers were before
    # (pytorch/pytorch#135712).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    launcher.LocalElasticAgent = Agent
    try:
        torchrun(list(argv))
    except ChildFailedError as error:
        status = status_of(error.get_first_failure()[1].exitcode)
        if status not in (MISTAKE, STOPPED):
            print(error, file=sys.stderr)
        return status
    except SignalException as error:
        return 128 + error.sigval
    return 0


def status_of(exitcode: int) -> int:
    """A process's exit code, -n where signal n killed it, as a shell has it."""
    return exitcode if exitcode >= 0 else 128 - exitcode


def _end_with_parent() -> None:
    """Be sent SIGTERM when the process that started this one is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
