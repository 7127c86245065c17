"""From an item's event to its vector in another process, by way of a real Redis server.

The server, ``apps.update_vectors`` and a reader that looks twice a second, as the scorer does, are
processes of their own, on the same cores. Ours is the 99th percentile of seconds from when an event
was sent until the reader had its vector. The baseline is what the encoder alone took for a batch of
those events, on average: no index could be faster. Items and pictures are simulated.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from torchrec_mm.benchmarks.harness import (
    BenchmarkConfig,
    comparison,
    free_port,
    in_fresh_process,
)
from torchrec_mm.benchmarks.ranking.folder import kept_or_temporary, make_parts
from torchrec_mm.commands import module_of
from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.reader import IndexReader

SERVER = "redis-server"
LOOK_S = 0.5  # of the reader, as apps.serve has it
PATIENCE_S = 60.0  # after the last event
FIRST_ID = 1 << 40  # of the new items, which no other has
SUMS = re.compile(r"^item_encoding_seconds_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LiveConfig(BenchmarkConfig):
    """Seconds from an item's event to its vector in another process, at a steady rate.

    Needs redis-server. The encoder is that of pictures which the demo has, EfficientNet-Lite0.
    """

    work_dir: Path | None = None
    """Folder for the data, made once and used again; a temporary one if not given."""
    runs: int = 1
    """Repetitions, one after the other, each with a server and an index of its own."""
    items_per_s: float = 20.0
    """Events a second."""
    seconds: float = 60.0
    """In which they are sent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x > 0, "above 0", "items_per_s", "seconds")
        if shutil.which(SERVER) is None:
            raise InputError(f"{SERVER} must be on the PATH: apt-get install {SERVER}")


@dataclass(frozen=True)
class Followed:
    """A run. took_s: of each event. batch_s: of the encoder for one of ``batches``, on average."""

    took_s: np.ndarray
    batch_s: float
    batches: int


def compare(config: LiveConfig) -> Iterator[dict[str, Any]]:
    """One line."""
    with kept_or_temporary(config.work_dir) as folder:
        make_parts(folder, {"items": 200}, {"market": write_market, "scl": pretrain})
        runs = [follow(config, folder) for _ in range(config.runs)]
    took = [run.took_s for run in runs]
    yield comparison(
        "live",
        "s",
        [float(np.percentile(seconds, 99)) for seconds in took],
        [run.batch_s for run in runs],
        more_is_better=False,
        p50_s=float(np.median([np.percentile(seconds, 50) for seconds in took])),
        worst_s=float(np.max(np.concatenate(took))),
        items=sum(map(len, took)),
        items_per_s=config.items_per_s,
        batches=sum(run.batches for run in runs),
        encoding_s_an_item=sum(run.batch_s * run.batches for run in runs) / sum(map(len, took)),
    )


def write_market(out: Path) -> None:
    """A few items with pictures, and searches to train on."""
    sizes = {"items": 200, "users": 40, "impressions": 2000, "searches": 64}
    call("make_market", *(word for pair in sizes.items() for word in pair), "run_dir", out)


def pretrain(out: Path) -> None:
    """An encoder as it comes, but for a few steps: its speed is what counts."""
    steps = ["epochs", 1, "batch_size", 16, "bank_slots", 64]
    call("pretrain", "data", out.parent / "market", "modality", "image", *steps, "run_dir", out)


def call(command: str, *flags: object) -> None:
    """``python -m apps.COMMAND``; names and values in turn."""
    words = [f"--{word}" if place % 2 == 0 else word for place, word in enumerate(flags)]
    line = [sys.executable, "-m", module_of(command), *words]
    subprocess.run([str(word) for word in line], check=True, stdout=2, stderr=subprocess.DEVNULL)


def follow(config: LiveConfig, folder: Path) -> Followed:
    """Send, have them encoded, and look for them."""
    items = pq.read_table(folder / "market" / "items", columns=["image"])
    pictures = items["image"].drop_null().to_pylist()
    count, port = round(config.items_per_s * config.seconds), free_port()
    with tempfile.TemporaryDirectory(dir=folder) as made, redis(Path(made)) as url:
        index = Path(made) / "index"
        with updater(index, folder / "scl", url, port):
            sent = np.zeros(count)
            sending = threading.Thread(target=send, args=[url, pictures, config.items_per_s, sent])
            sending.start()
            seen = in_fresh_process(watch, index, count, config.seconds + PATIENCE_S, threads=1)
            sending.join()
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    if missing := int(np.isnan(seen).sum()):
        raise RuntimeError(f"{missing} of {count} items had no vector in time")
    sums = {name: float(value) for name, value in SUMS.findall(page)}
    return Followed(seen - sent, sums["sum"] / sums["count"], int(sums["count"]))


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server that has what it acknowledged on disk each second; its URL once it answers."""
    from redis import Redis
    from redis.backoff import ConstantBackoff
    from redis.exceptions import ConnectionError
    from redis.retry import Retry

    port = free_port()
    flags = {"port": port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes", "save": ""}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen([SERVER, *words], stdout=subprocess.DEVNULL) as process:
        try:
            patient = Retry(ConstantBackoff(0.1), 300)
            with Redis(port=port, retry=patient, retry_on_error=[ConnectionError]) as client:
                client.ping()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@contextmanager
def updater(index: Path, encoder: Path, url: str, port: int) -> Iterator[None]:
    """``apps.update_vectors`` by its default flags, once it reads."""
    flags = ["--index", index, "--encoder", encoder, "--events", url, "--metrics_port", port]
    line = [str(word) for word in (sys.executable, "-m", module_of("update_vectors"), *flags)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            if b" takes vectors of " not in process.stdout.readline():
                raise RuntimeError("apps.update_vectors did not start")
            yield
        finally:
            process.terminate()


def send(url: str, pictures: list[bytes], per_second: float, sent: np.ndarray) -> None:
    """Events of new items, evenly; ``sent``, (n,), gets the time of each."""
    from redis import Redis

    with Redis.from_url(url) as client:
        start = time.time()
        for number in range(len(sent)):
            time.sleep(max(0.0, start + number / per_second - time.time()))
            image = pictures[number % len(pictures)]
            sent[number] = time.time()
            event = {"item_id": FIRST_ID + number, "version": 1, "image": image}
            client.xadd("item_events", event)


def watch(index: Path, count: int, seconds: float) -> np.ndarray:
    """(n,) times at which each item had a vector first; NaN for what had none in time."""
    reader, items = IndexReader(index), FIRST_ID + np.arange(count)
    seen, until = np.full(count, np.nan), time.time() + seconds
    while np.isnan(seen).any() and time.time() < until:
        time.sleep(LOOK_S)
        reader.refresh()
        is_new = np.isnan(seen) & (reader.vectors.rows(items) >= 0)
        seen[is_new] = time.time()
    return seen
