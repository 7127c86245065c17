"""The data of the ranker and loader benchmarks: one set of tables, prepared for both sides.

tables/    as TAOBAO-MM is published      joined/    for the baseline
encoded/   for ours                       vectors/   item vectors, for ours
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.benchmarks.harness import BenchmarkConfig
from torchrec_mm.benchmarks.ranking.baseline_rows import join_tables
from torchrec_mm.benchmarks.ranking.folder import kept_or_temporary, make_parts
from torchrec_mm.config import check_fields
from torchrec_mm.data.encode.encode import encode
from torchrec_mm.data.encode.taobao_mm import TaobaoMM
from torchrec_mm.data.encode.taobao_mm_files import ITEM, VECTOR, VECTORS, table_files
from torchrec_mm.documents import read_json
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.item_vectors.interchange import import_parquet
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.simulation.taobao_mm.shop import ITEMS_PER_CATEGORY
from torchrec_mm.simulation.taobao_mm.simulate import make_tables

CANDIDATES = 11


@dataclass(frozen=True, kw_only=True)
class DataConfig(BenchmarkConfig):
    """The flags that fix the data."""

    work_dir: Path | None = None
    """Folder for the data, made once and used again; a temporary one if not given."""
    users: int = 20_000
    """Users in training, 11 impressions each; every fourth is in the test set too."""
    items: int = 300_000
    """Items of the data set, at least 100."""
    behaviours: int = 1000
    """Most behaviours of a user."""
    seed: int = 0
    """Of the data, the weights and the order of requests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "users", "behaviours")
        check_fields(
            self, lambda x: x >= ITEMS_PER_CATEGORY, f"at least {ITEMS_PER_CATEGORY}", "items"
        )
        check_fields(self, lambda x: x >= 0, "at least 0", "seed")

    def size(self) -> dict[str, int]:
        """What ``make_tables`` takes."""
        names = ("users", "items", "behaviours", "seed")
        return {name: getattr(self, name) for name in names} | {"candidates": CANDIDATES}


@contextmanager
def ranker_data(config: DataConfig) -> Iterator[Path]:
    """The folder of data, made if need be, else temporary; InputError if work_dir holds other."""
    with kept_or_temporary(config.work_dir) as folder:
        size, tables = config.size(), folder / "tables"
        parts: dict[str, Callable[[Path], None]] = {
            "tables": lambda out: make_new_tables(out, size),
            "joined": lambda out: join_tables(tables, out),
            "encoded": lambda out: encode_tables(tables, out, size["behaviours"]),
            "vectors": lambda out: import_vectors(tables, out),
        }
        make_parts(folder, size, parts)
        yield folder


def make_new_tables(out: Path, size: dict[str, int]) -> None:
    """What ``apps.make_taobao_mm`` does; made.json holds the AUC of the true probabilities."""
    with new_folder(out) as aside:
        _, clicks, logits = make_tables(aside, **size)
        write_json(aside / "made.json", {"test_auc": finite_or_none(auc(clicks, logits))})


def true_auc(folder: Path) -> float | None:
    """The test AUC that no model can beat but by luck."""
    return read_json(folder / "tables" / "made.json")["test_auc"]


def encode_tables(tables: Path, out: Path, max_behaviours: int) -> None:
    """What ``apps.encode --source taobao_mm`` does."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".scratch.") as scratch:
        source = TaobaoMM(tables, ("train", "test"), max_behaviours, Path(scratch))
        encode(source, out)


def import_vectors(tables: Path, out: Path) -> None:
    """The published int8 vectors as item vectors."""
    (file,) = table_files(tables, VECTORS)
    import_parquet(file, out, columns=(ITEM, VECTOR))
