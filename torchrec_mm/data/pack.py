"""Items and searches to packed content, streamed: memory holds ids and digests, not pictures.

    meta.json         sizes, modalities, names of attributes, fingerprint
    item_ids.npy      (N,) int64 ascending
    attributes.npy    (A, N) int64, the integer columns of items/
    search_ids.npy, timestamps.npy, purchased.npy   (S,) int64, in order of (timestamp, search_id)
    hard.npy          (S, H) int64 rows of items, -1 in empty slots
    image/, text/     bytes.bin, and what ``content_writer`` keeps of it for each row

Shape letters: N items, A attributes, S searches, H hard-negative slots.
"""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.data.content_writer import ContentWriter
from torchrec_mm.data.items import CONTENT_COLUMNS
from torchrec_mm.data.packed import FORMAT
from torchrec_mm.data.parquet import (
    BINARY,
    INT64,
    INT64_LIST,
    STRING,
    check_columns,
    open_dataset,
    parquet_files,
)
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.ids import IdIndex, sort_unique

MAX_HARD_NEGATIVES = 8
BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20
ITEM_COLUMNS = {"image": "image", "text": "title"}
QUERY_COLUMNS = {"image": "query_image", "text": "query_text"}


def pack(data: Path, folder: Path, modalities: Collection[str]) -> None:
    """Pack ``data/items/`` and ``data/searches/`` into a new folder.

    Args:
        data: as the README lays it out. folder: appears when it is whole.
        modalities: "image" and/or "text".

    Raises:
        InputError: missing folder or column, wrong type, an id given twice, a purchased or clicked
            item that is not in items/, a row without any of the modalities, a modality that no
            item has, or an existing ``folder``.
    """
    with new_folder(folder) as aside:
        writers = {modality: ContentWriter(aside / modality) for modality in modalities}
        items = _read(
            data / "items",
            {"item_id": INT64} | dict.fromkeys(_attributes(data / "items"), INT64),
            ITEM_COLUMNS,
            writers,
        )
        for modality, writer in writers.items():
            if not writer.present().any():
                raise InputError(
                    f"{data / 'items'} column {ITEM_COLUMNS[modality]} must hold a value for "
                    f"--modality {modality}, got none in {len(items['item_id'])} rows"
                )
        searches = _read(
            data / "searches",
            {
                "search_id": INT64,
                "timestamp": INT64,
                "purchased_item_id": INT64,
                "clicked_item_ids": INT64_LIST,
            },
            QUERY_COLUMNS,
            writers,
        )
        _write(aside, items, searches, writers, data)


def _attributes(folder: Path) -> list[str]:
    """The integer columns that say more of an item, in the order of the files."""
    return [
        field.name
        for field in open_dataset(folder).schema
        if field.name not in CONTENT_COLUMNS and pa.types.is_integer(field.type)
    ]


def _read(
    folder: Path,
    required: dict[str, pa.DataType],
    columns: dict[str, str],
    writers: dict[str, ContentWriter],
) -> dict[str, np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Append the contents of a folder to ``writers``; the required columns, whole.

    A column of lists becomes (values, lengths).
    """
    nullable = {columns["text"]: STRING} if "text" in writers else {}
    if "image" in writers:
        nullable |= {columns["image"]: BINARY, f"{columns['image']}_path": STRING}
    kept: dict[str, list] = {name: [] for name in required}
    id_column = next(iter(required))
    for table in _batches(folder, required, nullable):
        table = check_columns(table, folder, required, nullable)
        has = []
        for modality, writer in writers.items():
            name = columns[modality]
            values, paths = (_column(table, column) for column in (name, f"{name}_path"))
            has.append(writer.add(values, paths, folder))
        empty = ~np.logical_or.reduce(has)
        if len(writers) > 1 and empty.any():
            names = " and ".join(columns[modality] for modality in writers)
            raise InputError(
                f"{folder} columns {names} must not both be null, got {id_column} "
                f"{table[id_column].to_numpy()[empty][0]}"
            )
        for name, kind in required.items():
            kept[name].append(
                _lists(table[name], folder, name) if kind == INT64_LIST else table[name].to_numpy()
            )
    return {name: _joined(parts) for name, parts in kept.items()}


def _batches(
    folder: Path, required: dict[str, pa.DataType], nullable: dict[str, pa.DataType]
) -> Iterator[pa.Table]:
    schema = open_dataset(folder).schema
    check_columns(schema.empty_table(), folder, required, nullable)
    columns = [name for name in (*required, *nullable) if name in schema.names]
    files = parquet_files(folder)
    total = sum(pq.read_metadata(file).num_rows for file in files)
    if total == 0:
        raise InputError(f"{folder} must hold at least one row, got 0")
    with tqdm(total=total, desc=f"pack {folder.name}", unit="row", disable=None) as progress:
        for file in files:
            try:
                parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
                for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                    yield pa.Table.from_batches([batch])
                    progress.update(batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{file} could not be read: {error}") from error


def _column(table: pa.Table, name: str) -> list:
    """Its values, or nothing for each row where there is no such column."""
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _lists(column: pa.ChunkedArray, folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    lists = column.combine_chunks()
    values = lists.flatten()
    if values.null_count:
        raise InputError(f"{folder} column {name} must not hold nulls")
    return values.to_numpy(), np.diff(lists.offsets.to_numpy())


def _joined(parts: list):
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
    return np.concatenate(parts)


def _write(
    aside: Path, items: dict, searches: dict, writers: dict[str, ContentWriter], data: Path
) -> None:
    """Put everything in the promised order."""
    folder = data / "searches"
    ids = items.pop("item_id")
    by_id = sort_unique(ids, f"{data / 'items'} column item_id")
    search_ids = searches["search_id"]
    sort_unique(search_ids, f"{folder} column search_id")
    by_time = np.lexsort((search_ids, searches["timestamp"]))
    index = IdIndex(ids[by_id])
    purchased = _known(index, searches["purchased_item_id"], folder, "purchased_item_id")
    hard = _hard(index, *searches["clicked_item_ids"], purchased, folder)
    arrays = {
        "item_ids": index.sorted_ids,
        "attributes": np.stack([*items.values()])[:, by_id] if items else np.empty((0, len(ids))),
        "search_ids": search_ids[by_time],
        "timestamps": searches["timestamp"][by_time],
        "purchased": purchased[by_time],
        "hard": hard[by_time],
    }
    digest = hashlib.sha256()
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array.astype(np.int64))
        digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).data)
    order = np.concatenate([by_id, len(ids) + by_time])
    for modality, writer in writers.items():
        digest.update(modality.encode() + writer.close(order))
    write_json(
        aside / "meta.json",
        {
            "format": FORMAT,
            "items": len(ids),
            "searches": len(search_ids),
            "hard_slots": hard.shape[1],
            "modalities": list(writers),
            "attributes": list(items),
            "fingerprint": digest.hexdigest()[:16],
        },
    )


def _known(index: IdIndex, item_ids: np.ndarray, folder: Path, column: str) -> np.ndarray:
    rows = index.rows(item_ids)
    if (rows < 0).any():
        raise InputError(
            f"{folder} column {column} must be in items/, got {item_ids[rows < 0][0]} "
            f"({(rows < 0).sum()} such values)"
        )
    return rows


def _hard(
    index: IdIndex, clicked: np.ndarray, lengths: np.ndarray, purchased: np.ndarray, folder: Path
) -> np.ndarray:
    """(S, H) rows of items, -1 padded; the purchased item is never its own hard negative."""
    rows = _known(index, clicked, folder, "clicked_item_ids")
    search = np.repeat(np.arange(len(lengths)), lengths)
    bought = rows == purchased[search]
    search, rows = search[~bought], rows[~bought]
    slot = np.arange(len(search)) - np.searchsorted(search, search)  # place in the search's list
    kept = slot < MAX_HARD_NEGATIVES
    width = int(slot[kept].max(initial=-1)) + 1
    hard = np.full((len(lengths), width), -1, dtype=np.int64)
    hard[search[kept], slot[kept]] = rows[kept]
    return hard
