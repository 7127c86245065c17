"""SimTier over a long history: the general search against the parts of the usual way to do it.

Ours is always the whole search, from int8 vectors of random rows: cosines, tiers of all of them and
the top K. Each baseline does less: one step of what the usual way needs for the tiers alone.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.config import check_fields
from torchrec_mm.kernels.general_search import general_search

KEPT, NUM_TIERS = 50, 22  # MUSE's
BATCHES = 8  # in turn, so that no batch finds its vectors in a cache
Step = Callable[[int], Any]


@dataclass(frozen=True, kw_only=True)
class SimTierConfig(BenchmarkConfig):
    """Microseconds an impression of the general search: int8 vectors to tiers and top 50.

    Three baselines, each only a part of the usual way: the one-hot histogram of given cosines, the
    matrix product from the same int8 vectors (gather, float, product), and the product alone of
    float vectors that lie ready.
    """

    vectors: int = 2_000_000
    """Item vectors of width 128 that behaviours and candidates are drawn from."""
    requests: int = 90
    """Requests of a batch."""
    candidates: int = 11
    """Candidates of a request: its impressions."""
    behaviours: int = 1000
    """Behaviours of a request."""
    threads: int = 1
    """Threads of either side."""
    seconds: float = 2.0
    """Length of each measurement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("vectors", "requests", "candidates", "behaviours", "threads")
        check_fields(self, lambda x: x >= 1, "at least 1", *positive)
        check_fields(self, lambda x: x > 0, "above 0", "seconds")


class Batches:
    """The same random requests for every side, and a way through each of them."""

    def __init__(self, config: SimTierConfig) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, dtype=dtype)

        requests = config.requests
        self.vectors = draw(-127, 128, config.vectors, 128, dtype=torch.int8)
        self.candidates = draw(0, config.vectors, BATCHES, requests, config.candidates)
        self.behaviours = draw(0, config.vectors, BATCHES, requests, config.behaviours)
        self.candidate_offsets = torch.arange(requests + 1) * config.candidates
        self.behaviour_offsets = torch.arange(requests + 1) * config.behaviours

    def ours(self) -> Step:
        """Rows of int8 vectors to tiers and top K."""
        offsets = (self.candidate_offsets, self.behaviour_offsets)
        return lambda i: general_search(
            self.vectors,
            self.candidates[i].flatten(),
            self.behaviours[i].flatten(),
            *offsets,
            keep=KEPT,
            num_tiers=NUM_TIERS,
        )

    def one_hot(self) -> Step:
        """Cosines (I, L) to tiers: (I, L, N) of zeros and ones, summed over L."""
        cosines = [self._product(i).flatten(0, 1) for i in range(BATCHES)]
        return lambda i: one_hot_tiers(cosines[i])

    def gathered_product(self) -> Step:
        """Rows of int8 vectors to (R, C, L) cosines."""
        return self._product

    def product(self) -> Step:
        """Float vectors (R, C, D) and (R, L, D) of length 1 to (R, C, L) cosines."""
        ready = [self._normalised(i) for i in range(BATCHES)]
        return lambda i: torch.bmm(ready[i][0], ready[i][1].mT)

    def _normalised(self, i: int) -> list[Tensor]:
        rows = (self.candidates[i], self.behaviours[i])
        return [F.normalize(self.vectors[row].float(), dim=-1) for row in rows]

    def _product(self, i: int) -> Tensor:
        candidates, behaviours = self._normalised(i)
        return torch.bmm(candidates, behaviours.mT)


def one_hot_tiers(cosine: Tensor) -> Tensor:
    """(I, L) cosines -> (I, N) counts, the way public code makes them."""
    tier = ((cosine + 1) * (NUM_TIERS / 2)).long().clamp(0, NUM_TIERS - 1)
    return F.one_hot(tier, NUM_TIERS).sum(dim=1)


def compare(config: SimTierConfig) -> Iterator[dict[str, Any]]:
    """The whole search against the histogram, then against the product."""
    names = ("ours", "one_hot", "gathered_product", "product")
    fresh = partial(in_fresh_process, threads=config.threads)
    sides = {name: partial(fresh, measure, name, config) for name in names}
    seconds = alternate(sides, config.runs)
    for name in names[1:]:
        yield comparison(
            f"simtier/{name}",
            "us/impression",
            seconds["ours"],
            seconds[name],
            more_is_better=False,
            candidates=config.candidates,
            behaviours=config.behaviours,
            threads=config.threads,
        )


def measure(name: str, config: SimTierConfig) -> float:
    """Median microseconds an impression of one side, after a first pass through all batches."""
    step = getattr(Batches(config), name)()
    for i in range(BATCHES):
        step(i)
    taken: list[float] = []
    end = time.perf_counter() + config.seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        step(len(taken) % BATCHES)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6 / (config.requests * config.candidates)
