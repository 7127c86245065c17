"""What a GPU makes of it: steps, banks, encoding and bandwidth, each beside what is compared.

The batches of the two methods come in two ways. "held": a few lie ready, so that the device alone
is measured; ours hold what hosts find out before, searches and what MAKE says. Otherwise from files
to updated tables, hosts and all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

from torchrec_mm.benchmarks import embedding, pretraining
from torchrec_mm.benchmarks.device import bandwidth, held
from torchrec_mm.benchmarks.device.bandwidth import BandwidthTask
from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking import baseline, ours, short_ours
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.benchmarks.ranking.short_data import ShortDataConfig, short_data
from torchrec_mm.benchmarks.ranking.sides import RankerTask, ShortTask
from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import usable_gpus

Part = Literal["muse", "simtier+make", "bandwidth", "pretraining", "embedding"]


@dataclass(frozen=True, kw_only=True)
class GpuConfig(BenchmarkConfig):
    """On one GPU, ours beside plain PyTorch; on a host without one it is refused.

    muse and simtier+make: impressions a second, from files and of batches that lie ready, beside
    the networks of public reference code with nn.Embedding and one-hot tiers. bandwidth: GB/s of
    the general search and of look-ups beside a copy. pretraining and embedding: as the benchmarks
    of these names. All data are simulated.
    """

    parts: tuple[Part, ...] = ("muse", "simtier+make", "bandwidth", "pretraining", "embedding")
    """What to measure."""
    batch_impressions: tuple[int, ...] = (1_000, 8_000, 32_000)
    """Impressions in a batch, of both sides; one comparison each."""
    seconds: float = 5.0
    """Length of each measurement, after warming up."""
    users: int = 20_000
    """Users that muse learns from, 11 impressions and up to 1000 behaviours each."""
    items: int = 300_000
    """Items that they look at."""
    requests: int = 40_000
    """About as many requests that simtier+make learns from, 50 behaviours each."""
    baseline_workers: int = 4
    """Processes that read ahead for plain PyTorch."""
    copied_mib: int = 1_024
    """Size of the copy that bandwidths are beside."""
    vectors: int = 2_000_000
    """Vectors of width 128, int8, that are searched in."""
    searched_requests: int = 512
    """Requests of a search, 10 candidates and 1000 behaviours each."""
    table_rows: int = 10_000_000
    """Rows of width 64 of the table that is looked up in."""
    looked_up: int = 1_000_000
    """Distinct rows of a look-up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_impressions", "users", "requests")
        of_bandwidth = ("copied_mib", "vectors", "searched_requests", "table_rows", "looked_up")
        check_fields(self, lambda x: x >= 1, "at least 1", *of_bandwidth)
        check_fields(self, lambda x: x >= 100, "at least 100", "items")
        check_fields(self, lambda x: x >= 0, "at least 0", "baseline_workers")
        check_fields(self, lambda x: x > 0, "above 0", "seconds")
        rule = f"at most table_rows, {self.table_rows}"
        check_fields(self, lambda x: x <= self.table_rows, rule, "looked_up")


def compare(config: GpuConfig) -> Iterator[dict[str, Any]]:
    """The parts, in the order in which they are named here."""
    if usable_gpus() == 0:
        raise InputError("gpu must run on a host with a GPU that ranks can use, got none")
    parts: dict[Part, Callable[[GpuConfig], Iterator[dict[str, Any]]]] = {
        "muse": compare_muse,
        "simtier+make": compare_simtier_make,
        "bandwidth": compare_bandwidth,
        "pretraining": lambda given: pretraining.compare(
            pretraining.PretrainingConfig(runs=given.runs)
        ),
        "embedding": lambda given: embedding.compare(embedding.EmbeddingConfig(runs=given.runs)),
    }
    for name, part in parts.items():
        if name in config.parts:
            yield from part(config)


def compare_muse(config: GpuConfig) -> Iterator[dict[str, Any]]:
    """Against the ranker benchmark's baseline."""
    with ranker_data(DataConfig(users=config.users, items=config.items)) as folder:
        tasks = {
            batch: RankerTask(
                folder=folder,
                batch_impressions=batch,
                seconds=config.seconds,
                epochs=0,
                embedding_dim=16,
                seed=0,
                baseline_workers=config.baseline_workers,
            )
            for batch in config.batch_impressions
        }
        sides = {
            "ours": ours.speed,
            "plain": baseline.speed,
            "ours held": held.muse,
            "plain held": held.plain_muse,
        }
        yield from _compare_steps("muse", config, tasks, sides)


def compare_simtier_make(config: GpuConfig) -> Iterator[dict[str, Any]]:
    """Against the same method in plain PyTorch."""
    with short_data(ShortDataConfig(requests=config.requests)) as folder:
        tasks = {
            batch: ShortTask(
                folder=folder,
                seconds=config.seconds,
                epochs=0,
                seed=0,
                batch_impressions=batch,
                method="simtier+make",
                baseline_workers=config.baseline_workers,
            )
            for batch in config.batch_impressions
        }
        sides = {
            "ours": short_ours.speed,
            "plain": held.plain_simtier_make_from_files,
            "ours held": held.simtier_make,
            "plain held": held.plain_simtier_make,
        }
        yield from _compare_steps("simtier+make", config, tasks, sides)


def _compare_steps(
    method: str, config: GpuConfig, tasks: dict[int, Any], sides: dict[str, Callable[..., float]]
) -> Iterator[dict[str, Any]]:
    """A line a batch and a way that batches come in; ``sides``: what is measured, by name."""
    measures = {
        f"{name} {batch}": partial(in_fresh_process, side, task)
        for (batch, task), (name, side) in product(tasks.items(), sides.items())
    }
    rates = alternate(measures, config.runs)
    for batch, way in product(tasks, ("", " held")):
        yield comparison(
            f"gpu/{method}{way.replace(' ', '/')}",
            "impressions/s",
            rates[f"ours{way} {batch}"],
            rates[f"plain{way} {batch}"],
            more_is_better=True,
            batch_impressions=batch,
        )


def compare_bandwidth(config: GpuConfig) -> Iterator[dict[str, Any]]:
    """Against a copy."""
    task = BandwidthTask(
        copied_mib=config.copied_mib,
        vectors=config.vectors,
        requests=config.searched_requests,
        rows=config.table_rows,
        dim=64,
        looked_up=config.looked_up,
        seconds=config.seconds,
    )
    sides = {"copy": bandwidth.copy, "search": bandwidth.search, "look_up": bandwidth.look_up}
    measures = {name: partial(in_fresh_process, side, task) for name, side in sides.items()}
    rates = alternate(measures, config.runs)
    for name in ("search", "look_up"):
        yield comparison(f"gpu/{name}", "GB/s", rates[name], rates["copy"], more_is_better=True)
