"""Jobs side by side, in processes that load torch and ours once for many short commands.

What ``launch`` runs instead is long: ranks of their own, started again where they failed.
"""

import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Thread

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


class JobPool:
    """Processes of some threads for jobs side by side; they stay from one ``run`` to the next.

    So what the jobs of all runs import, seconds of torch and ours, is loaded once a process. Each
    has one GPU, where there are any, and the next one another. To be used in a ``with`` block.
    """

    def __init__(self, processes: int, *, threads: int = 1, loaded: Sequence[str] = ()) -> None:
        """Begin.

        Args:
            processes: jobs at a time. threads: of torch, for each.
            loaded: modules that jobs import. Where there is no GPU they are imported once for all
                processes, while the caller goes on: of the first pool in this process that is told.
        """
        seen = gpus.in_sight()
        if loaded and not seen:  # no fork could use CUDA if one of the modules had begun it
            context: BaseContext = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([*loaded])
            ensure_running()
        else:
            context = multiprocessing.get_context("spawn")
        one_each = context.SimpleQueue()
        for number in range(processes):
            one_each.put(seen[number % len(seen)] if seen else None)
        self._pool = ProcessPoolExecutor(processes, context, _begin, (threads, one_each))

    def __enter__(self) -> "JobPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def start(self, jobs: Iterable[Job]) -> list[Future[None]]:
        """Have the jobs run, after those started before, and do not wait for them."""
        return [self._pool.submit(job.run) for job in jobs]

    def run(self, jobs: Iterable[Job]) -> None:
        """Run the jobs and wait for them; the first failure is raised."""
        finish(self.start(jobs))


def finish(futures: Sequence[Future[None]]) -> None:
    """Wait for jobs that were started; the first failure is raised."""
    for future in tqdm(futures, desc="runs", disable=None):
        future.result()


def run_side_by_side(jobs: Sequence[Job], processes: int, *, threads: int = 1) -> None:
    """Run the jobs in a pool of their own; the first failure ends it all."""
    with JobPool(processes, threads=threads) as pool:
        pool.run(jobs)


def _begin(threads: int, one_each: "SimpleQueue[str | None]") -> None:
    print_anything()
    Thread(target=_end_with_the_pool, daemon=True).start()
    if gpu := one_each.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import_module("torch").set_num_threads(threads)


def _end_with_the_pool() -> None:
    """Where who began it was killed: a job would go on beside that of whoever begins it again."""
    parent = parent_process()
    assert parent is not None  # who started this process
    wait([parent.sentinel])
    os._exit(1)
