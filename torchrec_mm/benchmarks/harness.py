"""How ours and a baseline are measured: alternately, each time in processes that are new.

A module of this room is one benchmark: ``compare(config)`` yields one dict a comparison, and the
type of ``config``, a BenchmarkConfig, holds its flags.
"""

import multiprocessing
import os
import queue
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Queue
from typing import Any, TypeVar
from unittest import mock

import torch
import torch.multiprocessing

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import usable_gpus
from torchrec_mm.reporting.machine import describe_machine

Result = TypeVar("Result")
Side = TypeVar("Side", str, int)

LOOK_S = 0.1  # for a result, before it is asked whether a rank has failed
RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """The flags that every benchmark has."""

    json: bool = False
    """Print one JSON line a comparison instead of a sentence."""
    runs: int = 3
    """Repetitions of each side, alternating; medians are reported."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "runs")


def alternate(sides: Mapping[Side, Callable[[], Result]], runs: int) -> dict[Side, list[Result]]:
    """Call every side in turn, ``runs`` times over: A B A B, so both share the machine's moods."""
    results: dict[Side, list[Result]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def comparison(
    benchmark: str,
    unit: str,
    ours: Sequence[float],
    baseline: Sequence[float],
    *,
    more_is_better: bool,
    **more: Any,
) -> dict[str, Any]:
    """One line of a benchmark, from one figure a run.

    Returns:
        {"benchmark", "unit", "ours", "baseline", "ratio", "runs", "machine"} and ``more``;
        ``ours`` and ``baseline`` are medians, a ratio above 1 says that ours is better.
    """
    middle, other = statistics.median(ours), statistics.median(baseline)
    return {
        "benchmark": benchmark,
        "unit": unit,
        "ours": middle,
        "baseline": other,
        "ratio": middle / other if more_is_better else other / middle,
        "runs": len(ours),
        **more,
        "machine": describe_machine(),
    }


def now(device: torch.device) -> float:
    """Seconds on a clock that is read when a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_fresh_process(work: Callable[..., Result], *args: Any, threads: int | None = None) -> Result:
    """``work(*args)`` in a process that has done nothing else; see ``on_fresh_ranks``."""
    return on_fresh_ranks(work, *args, world_size=1, threads=threads)[0]


def on_fresh_ranks(
    work: Callable[..., Result], *args: Any, world_size: int, threads: int | None = None
) -> list[Result]:
    """``work(*args)`` in ``world_size`` new processes at once, one result each in rank order.

    Several find each other through ``torchrec_mm.parallel.process_group``; one alone needs nobody.
    An exception in one ends them all.

    Args:
        work: a function at the top of a module. args: what a process can be sent.
        world_size: at least 1. threads: of each process, torch's own choice if None.

    Raises:
        InputError: more ranks than this machine has GPUs.
    """
    if 0 < (found := usable_gpus()) < world_size:
        raise InputError(f"world_size must be at most the GPUs here, {found}, got {world_size}")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with mock.patch.dict(os.environ, {} if threads is None else {"OMP_NUM_THREADS": str(threads)}):
        ranks = torch.multiprocessing.start_processes(
            _one_rank,
            (world_size, free_port(), threads, results, work, args),
            nprocs=world_size,
            start_method="spawn",
            join=False,
        )
    by_rank: dict[int, Result] = {}
    while len(by_rank) < world_size:  # before they have ended: a large result keeps them from it
        with suppress(queue.Empty):
            by_rank.update([results.get(timeout=LOOK_S)])
            continue
        ranks.join(timeout=0)  # raises what one raised
    while not ranks.join():
        pass
    return [by_rank[rank] for rank in range(world_size)]


def _one_rank(
    rank: int,
    world_size: int,
    port: int,
    threads: int | None,
    results: "Queue[tuple[int, Result]]",
    work: Callable[..., Result],
    args: Sequence[Any],
) -> None:
    for name in RENDEZVOUS:
        os.environ.pop(name, None)
    if world_size > 1:
        values = (rank, rank, world_size, world_size, "127.0.0.1", port)
        os.environ.update(zip(RENDEZVOUS, map(str, values), strict=True))
    if threads is not None:
        torch.set_num_threads(threads)
    results.put((rank, work(*args)))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
