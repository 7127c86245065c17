"""The data of the short benchmark: a **simulated** market of MovieLens's shape, for both sides.

market/    items and requests, as the data contract says    joined/    for the baseline
encoded/   for ours         vectors/   item vectors, for ours         make/   MAKE, for ours

Shape letters: N items, A hidden attributes of an item, D item-vector width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.benchmarks.harness import BenchmarkConfig, in_fresh_process
from torchrec_mm.benchmarks.ranking.folder import kept_or_temporary, make_parts
from torchrec_mm.benchmarks.ranking.short_ours import min_count, train_make
from torchrec_mm.benchmarks.ranking.short_rows import join_rows
from torchrec_mm.columns.jagged import list_array, offsets_of, ragged_positions
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.config import check_fields
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.prepare.behaviours import behaviours_before
from torchrec_mm.documents import read_json
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.simulation.market.catalogue import Catalogue, draw_catalogue
from torchrec_mm.simulation.market.market import Market, simulate

DAYS, TEST_DAYS = 12, 2
VECTOR_WIDTH = 128
OWN_SHARE = 0.5  # of an item's vector, what none of its hidden attributes explains


@dataclass(frozen=True, kw_only=True)
class ShortDataConfig(BenchmarkConfig):
    """The flags that fix the data."""

    work_dir: Path | None = None
    """Folder for the data, made once and used again; a temporary one if not given."""
    users: int = 600
    """Users."""
    items: int = 10_000
    """Items, with one attribute each besides their id; at least 100."""
    requests: int = 15_600
    """About as many requests, a sixth of them in the test set."""
    candidates: int = 8
    """Most candidates of a request, which has at least 6."""
    behaviours: int = 50
    """Most behaviours of a request."""
    seed: int = 0
    """Of the data, the weights and the order of requests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("users", "requests", "candidates", "behaviours")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)
        check_fields(self, lambda x: x >= 100, "at least 100", "items")
        check_fields(self, lambda x: x >= 0, "at least 0", "seed")

    def size(self) -> dict[str, int]:
        """What the data follow from."""
        names = ("users", "items", "requests", "candidates", "behaviours", "seed")
        return {name: getattr(self, name) for name in names}


@contextmanager
def short_data(config: ShortDataConfig) -> Iterator[Path]:
    """The folder of data, made if need be, else temporary; InputError if work_dir holds other."""
    with kept_or_temporary(config.work_dir) as folder:
        market, encoded, vectors = folder / "market", folder / "encoded", folder / "vectors"
        parts: dict[str, Callable[[Path], None]] = {
            "market": lambda out: write_market(out, config),
            "encoded": lambda out: encode_folder(
                market,
                ("train", "test"),
                out,
                max_behaviours=config.behaviours,
                min_count=min_count(),
            ),
            "vectors": lambda out: write_vectors(out, draw_items(config), config.seed),
            "joined": lambda out: join_rows(encoded, out, config.behaviours),
            "make": lambda out: in_fresh_process(train_make, encoded, vectors, out),
        }
        make_parts(folder, config.size(), parts)
        yield folder


def draw_items(config: ShortDataConfig) -> Catalogue:
    """Items whose one attribute column is their category, of all that shows in a picture."""
    catalogue = draw_catalogue(num_items=config.items, days=DAYS, seed=config.seed)
    return replace(catalogue, columns={"category": catalogue.columns["category"]})


def write_market(out: Path, config: ShortDataConfig) -> None:
    """Items without contents, requests; made.json holds the AUC of the rule behind the clicks."""
    market = simulate(
        draw_items(config),
        num_users=config.users,
        num_impressions=10 * config.requests,  # it shows ten a request on average
        num_searches=1,
        days=DAYS,
        test_days=TEST_DAYS,
        seed=config.seed,
    )
    with new_folder(out) as aside:
        items = {"item_id": market.catalogue.item_ids, **market.catalogue.columns}
        write_table(aside / "items" / "items.parquet", pa.table(items))
        is_test = market.requests.timestamp >= market.test_start
        for split, rows in (("train", ~is_test), ("test", is_test)):
            table, oracle = requests_table(market, rows, config)
            write_table(aside / "requests" / split / "requests.parquet", table)
        labels = table["labels"].combine_chunks().flatten().to_numpy()
        write_json(aside / "made.json", {"test_auc": finite_or_none(auc(labels, oracle))})


def requests_table(
    market: Market, chosen: np.ndarray, config: ShortDataConfig
) -> tuple[pa.Table, np.ndarray]:
    """Some requests, ``chosen``: (R,) bool, and the true logits of all their impressions.

    Of a request the first candidates stay; their order is random.
    """
    requests, clicks, item_ids = market.requests, market.clicks, market.catalogue.item_ids
    rows = np.flatnonzero(chosen)
    kept = np.minimum(requests.lengths[rows], config.candidates)
    at = ragged_positions(offsets_of(requests.lengths)[rows], kept)
    user, timestamp = requests.user[rows], requests.timestamp[rows]
    behaviours = behaviours_before(
        clicks.user, clicks.time, item_ids[clicks.item], user, timestamp, config.behaviours
    )
    table = pa.table(
        {
            "user_id": market.user_ids[user],
            "timestamp": timestamp,
            "behaviour_item_ids": behaviours,
            "candidate_item_ids": list_array(item_ids[requests.item[at]], kept),
            "labels": list_array(requests.label[at], kept),
        }
    )
    return table, requests.parts["oracle"][at]


def true_auc(folder: Path) -> float | None:
    """The test AUC that no model can beat but by luck."""
    return read_json(folder / "market" / "made.json")["test_auc"]


def write_vectors(out: Path, catalogue: Catalogue, seed: int) -> None:
    """Item vectors that cluster by taste: a direction for each value of a hidden attribute.

    What an encoder would see in pictures and titles, without drawing or encoding one.
    """
    rng = np.random.default_rng([seed, 3])
    vectors = OWN_SHARE * rng.standard_normal((len(catalogue), VECTOR_WIDTH))
    for values, num_values in zip(catalogue.attributes.T, catalogue.num_values, strict=True):
        vectors += rng.standard_normal((num_values, VECTOR_WIDTH))[values]
    write_item_vectors(
        out, catalogue.item_ids, vectors, dtype="float32", encoder="simulated", modality="fused"
    )
