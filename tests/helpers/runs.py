"""Small runs of the commands of phase two, in this process."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest

import apps.evaluate
import apps.train_make
import apps.train_ranker
from tests.helpers.small_market import SmallMarket
from torchrec_mm.data.stream import batch_limits
from torchrec_mm.train import fit

ROOT = Path(__file__).parents[2]

SMALL_MAKE = [
    *("--width", "6", "--hidden", "[8,4]", "--batch_requests", "16", "--epochs", "2"),
    *("--log_every_steps", "1", "--dropout", "0"),  # each rank drops out otherwise
]
SMALL_RANKER = [
    *("--embedding_dim", "4", "--hidden", "[8,4]", "--batch_requests", "16", "--min_count", "2"),
    *("--num_tiers", "5", "--table_learning_rate", "0.1", "--learning_rate", "0.01"),
    *("--log_every_steps", "1"),
]


def make_flags(market: SmallMarket, run_dir: Path) -> list[str]:
    return [*market.vector_flags, "--run_dir", str(run_dir), *SMALL_MAKE]


def ranker_flags(
    market: SmallMarket, run_dir: Path, method: str, make: Path | None = None
) -> list[str]:
    data = market.flags if method in ("bias", "id") else market.vector_flags
    make_run = ["--make", str(make)] if "make" in method else []
    return [*data, *make_run, "--method", method, "--run_dir", str(run_dir), *SMALL_RANKER]


def train_make(market: SmallMarket, run_dir: Path, *more: str) -> Path:
    apps.train_make.main([*make_flags(market, run_dir), *more])
    return run_dir


def train_ranker(
    market: SmallMarket, run_dir: Path, method: str, *more: str, make: Path | None = None
) -> Path:
    apps.train_ranker.main([*ranker_flags(market, run_dir, method, make), *more])
    return run_dir


@contextmanager
def small_batches(padded: int) -> Iterator[None]:
    """For the block: no batch is larger than ``padded``, whatever is asked for."""
    with mock.patch.multiple(batch_limits, PADDED=padded, PADDED_A_REQUEST=1):
        yield


class Stopped(BaseException):
    """What the process does not survive."""


@contextmanager
def stopped_before(step: int) -> Iterator[None]:
    """The training in the block ends, and with it the block, where ``step`` would begin, from 0."""
    before_step = fit.Loop._before_step

    def maybe_stop(loop):
        if loop.training.position.step == step:
            raise Stopped
        before_step(loop)

    with mock.patch.object(fit.Loop, "_before_step", maybe_stop), pytest.raises(Stopped):
        yield


def evaluate(market: SmallMarket, run_dir: Path, *more: str) -> dict:
    """What the run's metrics.json then holds."""
    apps.evaluate.main([*market.flags, "--run_dir", str(run_dir), *more])
    return json.loads((run_dir / "metrics.json").read_text())


def predictions(market: SmallMarket, run_dir: Path, file: Path) -> dict[str, list]:
    """Columns of the predictions of a run, as evaluated here and now."""
    evaluate(market, run_dir, "--predictions", str(file))
    return pq.read_table(file).to_pydict()


def lines_of(run_dir: Path, key: str) -> list[dict]:
    """Lines of metrics.jsonl that hold ``key``."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line, parse_constant=_no_json) for line in lines]
    return [line for line in parsed if key in line]


def last_step(run_dir: Path) -> int:
    """The last step in metrics.jsonl, whose last line may be half written."""
    log = run_dir / "metrics.jsonl"
    steps = re.findall(r'^{"step": (\d+),', log.read_text() if log.is_file() else "", re.MULTILINE)
    return max(map(int, steps), default=0)


def epochs_of(run_dir: Path) -> list[dict]:
    """Epoch lines but for their speed."""
    lines = lines_of(run_dir, "epoch")
    return [{k: v for k, v in line.items() if k != "impressions_per_s"} for line in lines]


def _no_json(word: str) -> None:
    raise ValueError(f"JSON has no {word}")
