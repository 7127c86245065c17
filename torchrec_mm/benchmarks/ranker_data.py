"""The data of the ranker and loader benchmarks: one set of tables, prepared for both sides.

tables/    as TAOBAO-MM is published      joined/    for the baseline
encoded/   for ours                       vectors/   item vectors, for ours
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.benchmarks.ranker_baseline_rows import join_tables
from torchrec_mm.data.encode import encode
from torchrec_mm.data.taobao_mm import TaobaoMM
from torchrec_mm.data.taobao_mm_files import ITEM, VECTOR, VECTORS, table_files
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.writer import write_item_vectors

SIZE_FILE = "size.json"


@dataclass(frozen=True)
class DataSize:
    """What fixes the data: requests of both splits, items, most behaviours of a user, seed."""

    requests: int
    test_requests: int
    items: int
    behaviours: int
    seed: int


@contextmanager
def ranker_data(work_dir: Path | None, size: DataSize) -> Iterator[Path]:
    """The folder of the data, made where it is not there yet; a temporary one without work_dir.

    Raises:
        InputError: work_dir holds data of another size, or something else.
    """
    if work_dir is None:
        with tempfile.TemporaryDirectory(prefix="ranker_data.") as temporary:
            make(Path(temporary) / "data", size)
            yield Path(temporary) / "data"
    else:
        make(work_dir, size)
        yield work_dir


def make(folder: Path, size: DataSize) -> None:
    """Make the parts that are not there; an interrupted call goes on after the last whole one."""
    check_size(folder, size)
    tables = folder / "tables"
    steps: dict[str, Callable[[Path], None]] = {
        "tables": lambda out: make_tables(out, size),
        "joined": lambda out: join_tables(tables, out),
        "encoded": lambda out: encode_tables(tables, out, size.behaviours),
        "vectors": lambda out: import_vectors(tables, out),
    }
    missing = [name for name in steps if not (folder / name).exists()]
    with tqdm(missing, desc="data", unit="part", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            steps[name](folder / name)


def check_size(folder: Path, size: DataSize) -> None:
    """Refuse a folder that is not ours to write to, else note in it what it will hold."""
    noted = folder / SIZE_FILE
    if not noted.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"work_dir must be a new folder or one of this benchmark, got {folder}"
            )
        write_json(noted, asdict(size))
    found = json.loads(noted.read_text())
    if found != asdict(size):
        raise InputError(f"work_dir must hold data of {asdict(size)}, {folder} holds {found}")


def encode_tables(tables: Path, out: Path, max_behaviours: int) -> None:
    """What ``apps.encode --source taobao_mm`` does."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".scratch.") as scratch:
        source = TaobaoMM(tables, ("train", "test"), max_behaviours, Path(scratch))
        encode(source, out, max_behaviours=max_behaviours)


def import_vectors(tables: Path, out: Path) -> None:
    """The published int8 vectors as item vectors."""
    table = pa.concat_tables(map(pq.read_table, table_files(tables, VECTORS))).combine_chunks()
    values = pc.list_flatten(table[VECTOR]).to_numpy().reshape(len(table), -1)
    write_item_vectors(
        out, table[ITEM].to_numpy(), values, dtype="int8", encoder="published", modality="fused"
    )
