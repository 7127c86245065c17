"""Labelled requests to a data set, or as one more file to a folder that a trainer follows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.contract.request_columns import OF_ITEMS
from torchrec_mm.data.contract.settings_file import put_settings
from torchrec_mm.data.prepare.prepared import check_items, given_settings, notes_on, read_splits
from torchrec_mm.data.prepare.request_parts import RequestParts
from torchrec_mm.data.served.labels import Labeller
from torchrec_mm.data.served.log_files import labelled
from torchrec_mm.files import new_file, new_folder


def write_data_set(
    labeller: Labeller, run_dir: Path, items: Path | None, test_share: float
) -> list[str]:
    """Write ``items/``, ``requests/`` and features.yaml.

    Args:
        labeller: of the requests. run_dir: folder to make, appears whole or not at all.
        items: folder with ``items/`` to copy; None: items are the ids of the requests.
        test_share: of the requests, the latest, for testing; no second is in both.

    Returns:
        A line on each thing worth knowing.

    Raises:
        InputError: a candidate that the items lack, an empty split, no label 1 at all.
    """
    lists = [name for name in labeller.schema.names if name.endswith(OF_ITEMS)]
    if items is not None:
        shown = (each["item_id"].to_numpy() for each in labeller.item_ids("candidate_item_ids"))
        check_items(items, shown, labeller.times())
    with new_folder(run_dir) as folder:
        _write_splits(labeller, folder / "requests", test_share)
        splits = read_splits(
            folder / "requests",
            f"none of {labeller.outcomes.rows} outcomes is a click on what was shown",
        )
        if items is not None:
            with input_errors(items / "items", "could not be copied"):
                shutil.copytree(items / "items", folder / "items")
        else:
            _write_ids(folder / "items", labeller.item_ids(*lists))
        put_settings(folder, given_settings(items))
    return [*labeller.notes(), *notes_on(splits)]


def add_file(labeller: Labeller, folder: Path) -> list[str]:
    """Write one file more, by a name that comes after all others; notes as above."""
    folder.mkdir(parents=True, exist_ok=True)
    last = max((file.stem for file in folder.glob("[!._]*.parquet")), default="0")
    path = folder / f"{int(last) + 1:09}.parquet"
    schema = labelled(labeller.schema, labeller.log)
    requests = candidates = clicks = 0
    with (
        new_file(path) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd") as file,
    ):
        for table in labeller.requests():
            file.write_table(table.cast(schema))
            labels = table["labels"].combine_chunks().flatten().to_numpy()
            requests, candidates = requests + table.num_rows, candidates + len(labels)
            clicks += int(np.sum(labels))
    said = f"{path.name} holds {requests} requests, {candidates} candidates, {clicks} of label 1"
    return [*labeller.notes(), said]


def _write_splits(labeller: Labeller, folder: Path, test_share: float) -> None:
    last = labeller.first_of_test(test_share)
    with RequestParts(folder / "train") as train, RequestParts(folder / "test") as test:
        for table in labeller.requests():
            is_test = pc.greater(table["timestamp"], last)
            train.add(table.filter(pc.invert(is_test)))
            test.add(table.filter(is_test))


def _write_ids(folder: Path, batches: Iterator[pa.RecordBatch]) -> None:
    folder.mkdir()
    schema = pa.schema({"item_id": INT64})
    with pq.ParquetWriter(folder / "part-0000.parquet", schema, compression="zstd") as file:
        for batch in batches:
            file.write_table(pa.Table.from_batches([batch]).cast(schema))
