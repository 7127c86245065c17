"""The data of the Criteo benchmark: **drawn** rows of its shape, for both sides.

market/    items and requests, as the data contract says, without a behaviour
encoded/   for ours         rows/   the same table rows in flat arrays, for the baseline

Of 26 categorical columns one is the user, one the item, and three are bags; the values of each
have Zipf's frequencies. Clicks follow a logistic rule of all of them and of 13 numbers.

Shape letters: N rows, I impressions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.benchmarks.harness import BenchmarkConfig
from torchrec_mm.benchmarks.ranking.criteo_rows import write_rows
from torchrec_mm.benchmarks.ranking.folder import kept_or_temporary, make_parts
from torchrec_mm.columns.jagged import list_array, offsets_of
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.config import check_fields
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.files import new_folder

NUMBERS = tuple(f"number_{place}" for place in range(13))
BAGS = tuple(f"bag_{place}" for place in range(3))
CATEGORIES = tuple(f"category_{place}" for place in range(21))
ITEMS, USERS, BAG_VALUES = 10_000, 50_000, 20_000
MOST_VALUES = 100_000  # of a category; the first has 10
MEAN_LENGTH = 10
NULL_SHARE = 0.1  # of the numbers
TEST_SHARE = 0.1
SETTINGS = "".join(f"{name}: {{kind: bag, pooling: sum}}\n" for name in BAGS)


@dataclass(frozen=True, kw_only=True)
class CriteoDataConfig(BenchmarkConfig):
    """The flags that fix the data."""

    work_dir: Path | None = None
    """Folder for the data, made once and used again; a temporary one if not given."""
    rows: int = 200_000
    """Impressions, a tenth of them in the test set."""
    candidates: int = 1
    """Impressions of a request: logs of rows have one."""
    seed: int = 0
    """Of the data, the weights and the order of requests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "candidates")
        check_fields(self, lambda x: x >= 100, "at least 100", "rows")
        check_fields(self, lambda x: x >= 0, "at least 0", "seed")

    def size(self) -> dict[str, int]:
        """What the data follow from."""
        return {name: getattr(self, name) for name in ("rows", "candidates", "seed")}


@contextmanager
def criteo_data(config: CriteoDataConfig) -> Iterator[Path]:
    """The folder of data, made if need be, else temporary; InputError if work_dir holds other."""
    with kept_or_temporary(config.work_dir) as folder:
        market, encoded = folder / "market", folder / "encoded"
        parts: dict[str, Callable[[Path], None]] = {
            "market": lambda out: write_market(out, config),
            "encoded": lambda out: encode_folder(market, ("train", "test"), out, max_behaviours=1),
            "rows": lambda out: write_rows(encoded, out),
        }
        make_parts(folder, config.size(), parts)
        yield folder


def write_market(out: Path, config: CriteoDataConfig) -> None:
    """Items without anything but ids, requests without behaviours."""
    rng = np.random.default_rng(config.seed)
    with new_folder(out) as aside:
        write_table(aside / "items" / "items.parquet", pa.table({"item_id": np.arange(ITEMS)}))
        (aside / "features.yaml").write_text(SETTINGS, encoding="utf-8")
        requests = max(2, round(config.rows / config.candidates))
        table = draw_requests(requests, config.candidates, rng)
        test = max(1, round(TEST_SHARE * requests))
        write_table(aside / "requests" / "train" / "a.parquet", table.slice(test))
        write_table(aside / "requests" / "test" / "a.parquet", table.slice(0, test))


def draw_requests(count: int, candidates: int, rng: np.random.Generator) -> pa.Table:
    """``count`` requests of as many candidates each."""
    each = np.full(count, candidates)
    columns: dict[str, np.ndarray | pa.Array] = {"user_id": zipf(USERS, count, rng)}
    logits = tastes(columns["user_id"], USERS, rng)
    for place, name in enumerate(CATEGORIES):
        values = round(10 * (MOST_VALUES / 10) ** (place / (len(CATEGORIES) - 1)))
        columns[name] = zipf(values, count, rng)
        logits += tastes(columns[name], values, rng)
    for name in BAGS:
        lengths = rng.poisson(MEAN_LENGTH, count)
        ids = zipf(BAG_VALUES, int(lengths.sum()), rng)
        columns[name] = list_array(ids, lengths)
        sums = np.concatenate([[0], np.cumsum(tastes(ids, BAG_VALUES, rng))])
        offsets = offsets_of(lengths)
        logits += np.diff(sums[offsets]) / np.sqrt(MEAN_LENGTH)
    for name in NUMBERS:
        numbers = rng.lognormal(2, 1, count)
        logits += rng.normal(0, 0.3) * (np.log(numbers) - 2)
        columns[name] = pa.array(numbers, mask=rng.random(count) < NULL_SHARE)
    items = zipf(ITEMS, count * candidates, rng)
    of_impressions = np.repeat(logits, each) + tastes(items, ITEMS, rng) - 1
    clicks = rng.random(len(items)) < 1 / (1 + np.exp(-of_impressions))
    none = list_array(np.empty(0, np.int64), np.zeros(count, np.int64))
    lists = {
        "behaviour_item_ids": none,
        "candidate_item_ids": list_array(items, each),
        "labels": list_array(clicks.astype(np.int8), each),
    }
    return pa.table({**columns, **lists})


def zipf(values: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) int64 in [0, values), value v about as often as 1 / (v + 1)."""
    return np.minimum(np.exp(rng.random(count) * np.log(values + 1)).astype(np.int64), values) - 1


def tastes(ids: np.ndarray, values: int, rng: np.random.Generator) -> np.ndarray:
    """What each id adds to the logit."""
    return rng.normal(0, 0.3, values)[ids]
