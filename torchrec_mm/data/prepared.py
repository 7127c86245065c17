"""What an adapter makes of a user's own data, and how it is written."""

from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
import pyarrow as pa

from torchrec_mm.data.items import read_items
from torchrec_mm.data.jagged import Jagged
from torchrec_mm.data.parquet import write_table
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder
from torchrec_mm.tables.reading import input_errors


@dataclass(frozen=True)
class Prepared:
    """Tables in the layout of the data contract.

    items: a table, or a folder of Parquet files to copy as it is. searches: None where unknown.
    """

    items: pa.Table | Path
    train: pa.Table
    test: pa.Table
    searches: pa.Table | None = None


def write_prepared(run_dir: Path, prepared: Prepared) -> None:
    """Write ``items/``, ``requests/train``, ``requests/test`` and, if any, ``searches/``.

    Raises:
        InputError: one of the two splits would be empty, or ``run_dir`` exists.
    """
    for split, table in (("train", prepared.train), ("test", prepared.test)):
        if table.num_rows == 0:
            raise InputError(
                f"requests/{split} must hold at least one request, got 0: too few rows to split"
            )
    with new_folder(run_dir) as folder:
        if isinstance(prepared.items, Path):
            with input_errors(prepared.items, "could not be copied"):
                copytree(prepared.items, folder / "items")
        else:
            write_table(folder / "items" / "part-0000.parquet", prepared.items)
        write_table(folder / "requests" / "train" / "part-0000.parquet", prepared.train)
        write_table(folder / "requests" / "test" / "part-0000.parquet", prepared.test)
        if prepared.searches is not None:
            write_table(folder / "searches" / "part-0000.parquet", prepared.searches)


def items_for(requests: pa.Table, data: Path | None) -> pa.Table | Path:
    """The ``items/`` folder of ``data``; without it, a table of every id in ``requests``.

    Raises:
        InputError: ``data/items`` is no catalogue, or lacks a candidate.
    """
    candidates = Jagged.from_arrow(requests["candidate_item_ids"], "candidate_item_ids").values
    if data is None:
        past = Jagged.from_arrow(requests["behaviour_item_ids"], "behaviour_item_ids").values
        return pa.table({"item_id": np.unique(np.concatenate([candidates, past]))})
    unknown = candidates[read_items(data).index.rows(candidates) < 0]
    if len(unknown):
        raise InputError(f"item_id must be in {data / 'items'}, got {unknown[0]}")
    return data / "items"
