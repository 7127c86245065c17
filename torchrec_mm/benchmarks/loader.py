"""Reading alone: what a worker delivers, and what it holds.

Ours streams requests: each user's behaviours once, whatever the number of candidates. The baseline
is the ranker baseline's row-wise loader, which delivers the same ids once an impression.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.benchmarks.harness import alternate, comparison, in_fresh_process
from torchrec_mm.benchmarks.ranking.baseline_rows import rows_loader
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.config import check_fields
from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays, read_meta
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.files import new_folder, write_json


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(DataConfig):
    """Impressions a second of one loader process, and its peak memory at two sizes of the data.

    The baseline reads rows joined on disk through pandas, one at a time, and pads them.
    """

    batch_impressions: int = 1000
    """Impressions in a batch."""
    seconds: float = 10.0
    """Length of each measurement, after the first batch."""
    larger: int = 8
    """How many times as large the second data set is, for memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_impressions", "larger")
        check_fields(self, lambda x: x > 0, "above 0", "seconds")


@dataclass(frozen=True)
class Reading:
    """Impressions a second, and the most memory that the process has held.

    added_bytes: of peak_bytes, what came on top of the imported libraries.
    """

    impressions_per_s: float
    peak_bytes: int
    added_bytes: int


def compare(config: LoaderConfig) -> Iterator[dict[str, Any]]:
    """Speed and memory of one worker."""
    with ranker_data(config) as folder:
        encoded, joined = folder / "encoded", folder / "joined" / "train.parquet"
        larger = folder / f"encoded_{config.larger}_times"
        if not (larger / "vocabularies.safetensors").exists():  # an earlier version made none
            shutil.rmtree(larger, ignore_errors=True)
            repeat(encoded, config.larger, larger)

        def measure(read: Callable[[Path, int, float], Reading], path: Path) -> Reading:
            return in_fresh_process(read, path, config.batch_impressions, config.seconds, threads=1)

        readings = alternate(
            {
                "ours": lambda: measure(read_requests, encoded),
                "ours_larger": lambda: measure(read_requests, larger),
                "baseline": lambda: measure(read_rows, joined),
            },
            config.runs,
        )
    memory = {
        f"{side}_{kind}": max(getattr(reading, kind) for reading in of_side)
        for side, of_side in readings.items()
        for kind in ("peak_bytes", "added_bytes")
    }
    yield comparison(
        "loader",
        "impressions/s",
        [reading.impressions_per_s for reading in readings["ours"]],
        [reading.impressions_per_s for reading in readings["baseline"]],
        more_is_better=True,
        batch_impressions=config.batch_impressions,
        larger=config.larger,
        **memory,
    )


def read_requests(encoded: Path, batch_impressions: int, seconds: float) -> Reading:
    """Ours: every id of the requests as flat tensors."""
    data = EncodedRequests(encoded, "train")
    limits = BatchLimits(
        requests=max(1, round(batch_impressions * len(data) / data.num_impressions))
    )
    # The loader hands on whatever the collator makes.
    loader = RequestLoader(data, AsTensors(), limits, shuffle_seed=0)  # type: ignore[arg-type]
    return reading((len(b["labels"]) for e in range(1 << 30) for b in loader.epoch(e)), seconds)


class AsTensors:
    """In the place of a collator: what the baseline's batches hold, no padding, no repetition."""

    def compare(self, shares: list[RequestArrays]) -> list[None]:
        """Nothing: there are no vectors."""
        return [None] * len(shares)

    def __call__(self, share: RequestArrays, *_: Any, **__: Any) -> dict[str, Tensor]:
        return {
            "candidates": torch.from_numpy(share.candidates.values),
            "candidate_offsets": torch.from_numpy(share.candidates.offsets),
            "behaviours": torch.from_numpy(share.behaviours.values),
            "behaviour_offsets": torch.from_numpy(share.behaviours.offsets),
            "labels": torch.from_numpy(share.labels),
            **{name: torch.from_numpy(rows) for name, rows in share.request_rows.items()},
        }


def read_rows(joined: Path, batch_impressions: int, seconds: float) -> Reading:
    """The baseline."""
    batches = (b for _ in range(1 << 30) for b in rows_loader(joined, batch_impressions, 0))
    return reading((len(batch["label"]) for batch in batches), seconds)


def reading(impressions: Iterator[int], seconds: float) -> Reading:
    """Draw batches, given as their numbers of impressions, for so many seconds."""
    before = memory_bytes("VmRSS")
    next(impressions)
    start = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        done += next(impressions)
    peak = memory_bytes("VmHWM")
    return Reading(done / elapsed, peak, peak - before)


def memory_bytes(name: str) -> int:
    """Resident memory of this process: VmRSS, or VmHWM, the most since it began."""
    with open("/proc/self/status", encoding="utf-8") as status:
        (line,) = (line for line in status if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def repeat(encoded: Path, times: int, larger: Path) -> None:
    """An encoded data set whose training requests are those of ``encoded``, ``times`` over."""
    requests = encoded / "requests" / "train"
    with new_folder(larger) as aside:
        for name in ("items", "vocabularies.safetensors"):
            os.symlink((encoded / name).resolve(), aside / name)
        repeated = aside / "requests" / "train"
        repeated.mkdir(parents=True)
        for copy in range(times):
            for part in sorted(requests.glob("*.parquet")):
                shutil.copyfile(part, repeated / f"{copy:03}_{part.name}")
        lengths = np.load(requests / "lengths.npy", allow_pickle=False)
        np.save(repeated / "lengths.npy", np.tile(lengths, (times, 1)))
        meta = read_meta(encoded)
        train = {name: count * times for name, count in meta["splits"]["train"].items()}
        write_json(aside / "meta.json", {**meta, "splits": {"train": train}})
