"""`vectors/`, the Parquet form that other systems read and write.

Columns: ``item_id`` int64, ``vector`` list<float> or list<int8> of one length (int8 = value/127).
Fixed-size and large lists, and floats of any precision, are read as well. Files that
``export_parquet`` wrote carry the vectors' origin in their metadata, so that it comes back.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import blocks_of, write_blocks
from torchrec_mm.tables.files import data_files

BATCH_ROWS = 8192
COLUMNS = ("item_id", "vector")
ORIGIN_KEY = b"torchrec_mm.origin"


def import_parquet(
    vectors: Path,
    folder: Path,
    *,
    dtype: str | None = None,
    encoder: str = "imported",
    modality: str = "fused",
    columns: tuple[str, str] = COLUMNS,
) -> None:
    """Turn a ``vectors/`` folder into item vectors. Two passes: the ids, then the values.

    Args:
        vectors: folder of Parquet files, or one file.
        folder: the new item-vectors folder.
        dtype: "int8" or "float32"; None keeps what the files hold.
        encoder: who made them; goes into ``meta.json``.
        modality: "image", "text" or "fused"; goes into ``meta.json``.
        columns: names of the ids and of the vectors.

    Raises:
        InputError: missing or empty folder, wrong columns or types, vectors of two lengths or of
            two origins, and everything ``write_blocks`` refuses.
    """
    files = [vectors] if vectors.is_file() else data_files(vectors)
    stored = _one_element_type(files, columns)
    origin = _one_origin(files)
    item_ids = np.concatenate([_read_item_ids(file, columns[0]) for file in files])
    if len(item_ids) == 0:
        raise InputError(f"{vectors} must hold at least one vector, got 0")
    width = _first_width(files, columns[1])
    with tqdm(total=len(item_ids), unit="item", desc="import", disable=None) as progress:
        write_blocks(
            folder,
            item_ids,
            _read_blocks(files, columns, width, progress),
            width=width,
            dtype=dtype or stored,
            encoder=encoder,
            modality=modality,
            origin=origin,
        )


def export_parquet(vectors: ItemVectors, folder: Path) -> None:
    """Write item vectors as a ``vectors/`` folder; int8 stays int8, float32 stays float."""
    element = pa.int8() if vectors.dtype == np.int8 else pa.float32()
    columns = [("item_id", pa.int64()), ("vector", pa.list_(element))]
    schema = pa.schema(columns, metadata={ORIGIN_KEY: vectors.origin.encode()})
    with new_folder(folder) as aside:
        file = aside / "part-00000.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in tqdm(list(blocks_of(len(vectors), vectors.width)), "export", disable=None):
                values = np.ascontiguousarray(vectors.values[block])
                offsets = np.arange(0, values.size + 1, vectors.width, dtype=np.int32)
                column = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), element))
                ids = pa.array(np.ascontiguousarray(vectors.item_ids[block]))
                writer.write_table(pa.table([ids, column], schema=schema))


def _one_element_type(files: list[Path], columns: tuple[str, str]) -> str:
    """What all the files hold: "int8" or "float32"."""
    found = {file: _element_type(file, *columns) for file in files}
    for file, element in found.items():
        if element != found[files[0]]:
            raise InputError(
                f"{file} column {columns[1]} must hold {found[files[0]]} as {files[0].name}, "
                f"got {element}"
            )
    return found[files[0]]


def _one_origin(files: list[Path]) -> str | None:
    """What the files' metadata name; None if they name none."""
    found = {file: (pq.read_schema(file).metadata or {}).get(ORIGIN_KEY) for file in files}
    for file, origin in found.items():
        if origin != found[files[0]]:
            raise InputError(
                f"{file} must hold vectors of the origin of {files[0].name}, "
                f"{found[files[0]]!r}, got {origin!r}"
            )
    return found[files[0]].decode() if found[files[0]] else None


def _element_type(file: Path, item: str, vector: str) -> str:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} must be a readable Parquet file: {error}") from error
    for name in (item, vector):
        if name not in schema.names:
            raise InputError(f"{file} must have a column {name}, got {', '.join(schema.names)}")
    item_id = schema.field(item).type
    if not pa.types.is_signed_integer(item_id):
        raise InputError(f"{file} column {item} must be int64, got {item_id}")
    column = schema.field(vector).type
    element = getattr(column, "value_type", None)
    if element == pa.int8():
        return "int8"
    if element is not None and pa.types.is_floating(element):
        return "float32"
    raise InputError(f"{file} column {vector} must be list<float> or list<int8>, got {column}")


def _read_item_ids(file: Path, name: str) -> np.ndarray:
    ids = [np.empty(0, dtype=np.int64)]
    for batch in _read_batches(file, [name]):
        column = batch[name]
        if column.null_count:
            raise InputError(f"{file} column {name} must not be null, got {column.null_count}")
        ids.append(column.cast(pa.int64()).to_numpy())
    return np.concatenate(ids)


def _read_batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The file's batches that hold rows; a file that breaks half-way is an InputError too."""
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                if batch.num_rows:
                    yield batch
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} could not be read: {error}") from error


def _first_width(files: list[Path], name: str) -> int:
    """Length of the first vector that is there; every other must have it."""
    for file in files:
        for batch in _read_batches(file, [name]):
            lengths = pc.list_value_length(batch[name]).drop_null()
            if len(lengths):
                return lengths[0].as_py()
    return 0


def _read_blocks(
    files: list[Path], columns: tuple[str, str], width: int, progress: tqdm
) -> Iterator[np.ndarray]:
    """The files' vectors in order: (n, D) each, int8 or float."""
    for file in files:
        for batch in _read_batches(file, list(columns)):
            yield _as_matrix(batch.select(columns), width, f"{file} column {columns[1]}")
            progress.update(batch.num_rows)


def _as_matrix(batch: pa.RecordBatch, width: int, where: str) -> np.ndarray:
    """(n, width) of a batch of ids and vectors; ``where`` names the column of vectors."""
    item_ids, vectors = batch.columns
    lengths = pc.fill_null(pc.list_value_length(vectors), -1).to_numpy()
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        length = lengths[wrong[0]]
        raise InputError(
            f"{where} must have one length, {width}, got "
            f"{'null' if length < 0 else length} for item_id {item_ids[wrong[0]]}"
        )
    values = vectors.flatten()
    if values.null_count:
        row = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0] // width
        raise InputError(f"{where} must hold no nulls, got one for item_id {item_ids[row]}")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
