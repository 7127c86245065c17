"""How near two kernels come to a copy in the same memory.

Both count the bytes that must move, each once: what a cache spares is not in the way of a higher
figure.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from torchrec_mm.benchmarks.harness import now
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.kernels.general_search import general_search
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import build_one_id_tables

VECTOR_WIDTH, KEPT, NUM_TIERS = 128, 50, 22
CANDIDATES, BEHAVIOURS = 10, 1000


@dataclass(frozen=True, kw_only=True)
class BandwidthTask:
    """What is moved.

    copied_mib: of the copy. vectors: int8, to search in. requests: searched at once. rows, dim: of
    a table. looked_up: rows of it at once. seconds: of each measurement.
    """

    copied_mib: int
    vectors: int
    requests: int
    rows: int
    dim: int
    looked_up: int
    seconds: float


def copy(task: BandwidthTask) -> float:
    """GB/s of a copy within the device, read and written."""
    with process_group() as worker:
        source = torch.ones(task.copied_mib << 20, dtype=torch.uint8, device=worker.device)
        target = torch.empty_like(source)
        return _rate(lambda: target.copy_(source), 2 * source.nbytes, worker.device, task.seconds)


def search(task: BandwidthTask) -> float:
    """GB/s of the general search: vectors of candidates and behaviours read, results written."""
    with process_group() as worker:
        device, shape = worker.device, (task.vectors, VECTOR_WIDTH)
        vectors = torch.randint(-127, 128, shape, dtype=torch.int8, device=device)
        counts = torch.arange(task.requests + 1, device=device)
        rows = [
            torch.randint(0, task.vectors, (task.requests * n,), dtype=torch.int32, device=device)
            for n in (CANDIDATES, BEHAVIOURS)
        ]
        offsets = [counts * CANDIDATES, counts * BEHAVIOURS]
        step = lambda: general_search(  # noqa: E731
            vectors, *rows, *offsets, keep=KEPT, num_tiers=NUM_TIERS
        )
        moved = sum(len(each) for each in rows) * (VECTOR_WIDTH + 4)
        moved += sum(each.nbytes for each in step())
        return _rate(step, moved, device, task.seconds)


def look_up(task: BandwidthTask) -> float:
    """GB/s of looking up distinct rows of a table: ids and rows read, rows written."""
    with suppress_library_warnings(), process_group() as worker:
        tables = build_one_id_tables({"item_id": task.rows}, task.dim)
        model = nn.ModuleDict({"tables": tables, "dense": nn.Linear(1, 1)})
        settings = OptimizerSettings(learning_rate=0.0, weight_decay=0.0, table_scale=0.01)
        sharded = distribute(model, worker, settings, seed=0).model.module["tables"]
        ids = torch.randperm(task.rows)[: task.looked_up]
        bags = one_id_bags({"item_id": ids.numpy()})
        assert bags is not None  # of one feature
        bags.sync()
        bags = bags.to(worker.device)
        moved = len(ids) * (8 + 2 * 4 * task.dim)
        with torch.no_grad():
            return _rate(lambda: sharded(bags).values(), moved, worker.device, task.seconds)


def _rate(step: Callable[[], object], moved: int, device: torch.device, seconds: float) -> float:
    """GB/s of a step that moves so many bytes, after a few to warm up."""
    for _ in range(3):
        step()
    start, steps = now(device), 0
    while steps == 0 or (elapsed := now(device) - start) < seconds:
        for _ in range(10):
            step()
        steps += 10
    return steps * moved / elapsed / 1e9
