"""Jobs side by side, in processes that load torch and ours once for many short commands.

What ``launch`` runs instead is long: ranks of their own, started again where they failed.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from tqdm import tqdm

from torchrec_mm import gpus
from torchrec_mm.commands import call
from torchrec_mm.ending import print_anything


@dataclass(frozen=True)
class Job:
    """Commands and their flags, one after another; done once ``result`` is there.

    Without a result the commands are run in any case: they resume, and find nothing left to do.
    """

    commands: tuple[tuple[str, Sequence[str]], ...]
    result: Path | None

    def run(self) -> None:
        """Do what is to be done."""
        if self.result is None or not self.result.exists():
            for command, flags in self.commands:
                call(command, *flags)


def run_side_by_side(jobs: Sequence[Job], processes: int, *, threads: int = 1) -> None:
    """Run the jobs in a pool of processes of some threads; the first failure ends it all.

    Each process has one GPU, where there are any, and the next one another.
    """
    context = multiprocessing.get_context("spawn")
    seen, one_each = gpus.in_sight(), context.SimpleQueue()
    for number in range(processes):
        one_each.put(seen[number % len(seen)] if seen else None)
    with ProcessPoolExecutor(processes, context, _begin, (threads, one_each)) as pool:
        futures = [pool.submit(job.run) for job in jobs]
        try:
            for future in tqdm(futures, desc="runs", disable=None):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(threads: int, one_each: "SimpleQueue[str | None]") -> None:
    print_anything()
    if gpu := one_each.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import_module("torch").set_num_threads(threads)
