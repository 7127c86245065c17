"""``ids/`` of a data folder: the texts that ids were, where a log or a catalogue has text.

Files and hashes are those of ``columns.text_ids``. All texts of a data set meet here, so that two
of one id are found.
"""

import glob
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.chunks import read_chunks
from torchrec_mm.columns.files import data_files, pictures
from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.reading import input_errors, read_footer
from torchrec_mm.columns.text_ids import MAP_SCHEMA
from torchrec_mm.data.logs.forms import TEXT, Typist, id_form
from torchrec_mm.errors import InputError

SORT_GB = 1.0
BATCH_ROWS = 122_880


def write_map(
    path: Path, column: str, texts: Iterable[pa.RecordBatch | pa.Table], scratch: Path
) -> None:
    """Write a map, sorted.

    Args:
        path: file to create. column: that the ids are of. texts: rows of MAP_SCHEMA, in any order,
            with or without repeats. scratch: folder to make, gone in the end.

    Raises:
        InputError: two texts have one id.
    """
    scratch.mkdir(parents=True)
    with pq.ParquetWriter(scratch / "texts.parquet", MAP_SCHEMA, compression="lz4") as writer:
        for batch in texts:
            writer.write(batch)
    last = MAP_SCHEMA.empty_table()
    path.parent.mkdir(exist_ok=True)
    with (
        duckdb.connect(
            config={"memory_limit": f"{SORT_GB}GB", "temp_directory": str(scratch / "spill")}
        ) as database,
        pq.ParquetWriter(path, MAP_SCHEMA, compression="zstd") as writer,
    ):
        rows = database.read_parquet(glob.escape(str(scratch / "texts.parquet")))
        for batch in rows.distinct().order("id, text").to_arrow_reader(BATCH_ROWS):
            table = pa.Table.from_batches([batch]).cast(MAP_SCHEMA)
            _check_different(column, pa.concat_tables([last, table]))
            writer.write_table(table)
            last = table.slice(max(table.num_rows - 1, 0))
    shutil.rmtree(scratch)


def _check_different(column: str, sorted_map: pa.Table) -> None:
    ids = sorted_map["id"].to_numpy()
    same = np.flatnonzero(ids[1:] == ids[:-1])
    if len(same):
        one, other = (sorted_map["text"][int(same[0]) + more].as_py() for more in (0, 1))
        raise InputError(
            f"{column} must be texts of different hashes, got {one!r} and {other!r}, which are "
            f"both {ids[same[0]]}: call one of them otherwise"
        )


def text_of(item_id: int, texts: Iterable[pa.RecordBatch | pa.Table]) -> str:
    """The text of an id that is among rows of MAP_SCHEMA."""
    for batch in texts:
        at = np.flatnonzero(batch["id"].to_numpy() == item_id)
        if len(at):
            return batch["text"][int(at[0])].as_py()
    raise KeyError(item_id)


def hash_items(given: Path, data: Path) -> None:
    """Write ``data/items`` like ``given/items``, whose item_id is text, with numbers.

    Files keep their names, whatever else they hold. ``read_item_texts`` gives the texts.

    Raises:
        InputError: not a folder like ``items/``, a column item_id that is not text, or is empty or
            null in a row.
    """
    folder = given / "items"
    files = data_files(folder, beside=pictures)
    with input_errors(folder, "could not be copied"):
        tables = {file.name for file in files}
        shutil.copytree(
            folder,
            data / "items",
            ignore=lambda at, names: tables & set(names) if Path(at) == folder else (),
        )
    (data / "texts").mkdir()
    for file in files:
        schema = read_footer(file).schema
        at = schema.get_field_index("item_id")
        if at < 0 or id_form(schema.field(at).type) != TEXT:
            found = ", ".join(schema.names) if at < 0 else schema.field(at).type
            raise InputError(f"{file} column item_id must be text as in the log, got {found}")
        numbers = schema.set(at, pa.field("item_id", INT64))
        with (
            Typist({"item_id": TEXT}) as typist,
            pq.ParquetWriter(data / "items" / file.name, numbers, compression="zstd") as items,
            pq.ParquetWriter(data / "texts" / file.name, MAP_SCHEMA, compression="lz4") as texts,
        ):
            for table, where in read_chunks(file):
                typed = typist(table.select(["item_id"]), where)
                if typed.bad:
                    rule = f"{where} must have an item_id in every row"
                    raise InputError(f"{rule}, got {typed.bad[0].rows} rows without")
                ids, text = typed.good.columns
                items.write_table(table.set_column(at, "item_id", ids))
                texts.write_table(pa.table([ids, text], MAP_SCHEMA))


def read_item_texts(data: Path) -> Iterator[pa.Table]:
    """What ``hash_items`` found: rows of MAP_SCHEMA."""
    for file in sorted((data / "texts").iterdir()):
        for table, _ in read_chunks(file):
            yield table.cast(MAP_SCHEMA)
