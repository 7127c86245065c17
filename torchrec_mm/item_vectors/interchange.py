"""`vectors/`, the Parquet form that other systems read and write.

Columns: ``item_id`` int64, ``vector`` list<float> or list<int8> of one length (int8 = value/127).
Fixed-size and large lists, tensors of one dimension and floats of any precision are read as well.
``item_id`` may be text: its numbers are then those of ``columns.text_ids``, which `apps.prepare`
gives to the same texts, and `ids/` of the data leads back.
Files that ``export_parquet`` wrote carry the vectors' origin in their metadata.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.columns.ahead import in_order
from torchrec_mm.columns.files import data_files
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import STRING, same_kind
from torchrec_mm.columns.reading import Footer, input_errors, read_footer, read_metadata
from torchrec_mm.columns.text_ids import hash_texts
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import BLOCK_VALUES, blocks_of, write_blocks

BATCH_ROWS = 8192  # decoded at a time, however long the row groups of others are
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
        InputError: missing or empty folder, wrong columns or types, ids that are text in one file
            and numbers in another, vectors of two lengths or of two origins, and everything
            ``write_blocks`` refuses.
    """
    files = [vectors] if vectors.is_file() else data_files(vectors)
    footers = [read_footer(file) for file in files]
    stored = _one_element_type(footers, columns)
    origin = _one_origin(footers)
    of_text = _ids_are_text(footers, columns[0])
    # All ids first: the folder is sorted by them, and vectors then go straight to their place.
    item_ids = np.concatenate([_read_item_ids(file, columns[0], of_text) for file in files])
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
                values = np.ascontiguousarray(vectors.values[block])  # off the disk, block by block
                offsets = np.arange(0, values.size + 1, vectors.width, dtype=np.int32)
                column = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), element))
                ids = pa.array(np.ascontiguousarray(vectors.item_ids[block]))
                writer.write_table(pa.table([ids, column], schema=schema))


def _one_element_type(footers: list[Footer], columns: tuple[str, str]) -> str:
    """What all the files hold: "int8" or "float32"."""
    found = {footer.file: _element_type(footer, *columns) for footer in footers}
    first = footers[0].file
    for file, element in found.items():
        if element != found[first]:
            rule = f"{file} column {columns[1]} must hold {found[first]} as {first.name}"
            raise InputError(f"{rule}, got {element}")
    return found[first]


def _one_origin(footers: list[Footer]) -> str | None:
    """What the files' notes name; None if they name none."""
    # Nothing else would notice: vectors of two encoders have cosines too, that mean nothing.
    origins = [footer.notes.get(ORIGIN_KEY) for footer in footers]
    for footer, origin in zip(footers, origins, strict=True):
        if origin != origins[0]:
            rule = f"{footer.file} must hold vectors of the origin of {footers[0].file.name}"
            raise InputError(f"{rule}, {origins[0]!r}, got {origin!r}")
    return origins[0].decode() if origins[0] else None


def _element_type(footer: Footer, item: str, vector: str) -> str:
    schema = footer.schema
    for name in (item, vector):
        if name not in schema.names:
            rule = f"{footer.file} must have a column {name}"
            raise InputError(f"{rule}, got {', '.join(schema.names)}")
    item_id = schema.field(item).type
    # Of any width: an id that int64 cannot hold is refused where it is read, by its value.
    if not pa.types.is_integer(item_id) and not _is_text(item_id):
        raise InputError(f"{footer.file} column {item} must be int64 or text, got {item_id}")
    column = schema.field(vector).type
    vectors = _list_type(column)
    element = vectors.value_type if vectors else None
    if element == pa.int8():
        return "int8"
    if element is not None and pa.types.is_floating(element):
        return "float32"
    rule = f"{footer.file} column {vector} must be list<float> or list<int8>"
    raise InputError(f"{rule}, got {column}")


def _ids_are_text(footers: list[Footer], item: str) -> bool:
    """Of all files; InputError where they differ."""
    found = {footer.file: _is_text(footer.schema.field(item).type) for footer in footers}
    first = footers[0].file
    for file, is_text in found.items():
        if is_text != found[first]:
            rule = f"{file} column {item} must be numbers or text as in {first.name}"
            raise InputError(f"{rule}, got the other")
    return found[first]


def _is_text(kind: pa.DataType) -> bool:
    return same_kind(kind, STRING) and not pa.types.is_null(kind)


def _list_type(kind: pa.DataType) -> pa.DataType | None:
    """The list that a column is, of a tensor of one dimension the one it is stored as, or None."""
    if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1:
        kind = kind.storage_type
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind if any(test(kind) for test in tests) else None


def _read_item_ids(file: Path, name: str, of_text: bool) -> np.ndarray:
    ids = [np.empty(0, dtype=np.int64)]  # of a file without rows
    for batch in _read_batches(file, [name]):
        column = batch[name]
        if column.null_count:
            raise InputError(f"{file} column {name} must not be null, got {column.null_count}")
        if of_text:
            texts = column.cast(STRING)
            if pc.any(pc.equal(texts, "")).as_py():
                raise InputError(f"{file} column {name} must not be empty text")
            ids.append(to_numpy(hash_texts(texts)))
            continue
        with input_errors(f"{file} column {name}", f"must be int64, got {column.type}"):
            ids.append(to_numpy(column.cast(pa.int64())))
    return np.concatenate(ids)


def _read_batches(
    file: Path,
    columns: list[str],
    groups: list[int] | None = None,
    metadata: pq.FileMetaData | None = None,
) -> Iterator[pa.RecordBatch]:
    """The batches that hold rows, of some row groups or the whole file.

    A file that breaks half-way is an InputError too. ``metadata``: the file's, where it was read.
    """
    with input_errors(file), pq.ParquetFile(file, metadata=metadata) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns):
            if batch.num_rows:
                yield batch


def _first_width(files: list[Path], name: str) -> int:
    """Length of the first vector that is there; every other must have it."""
    for file in files:
        for batch in _read_batches(file, [name]):
            lengths = pc.list_value_length(_as_lists(batch[name])).drop_null()
            if len(lengths):
                return lengths[0].as_py()
    return 0


def _read_blocks(
    files: list[Path], columns: tuple[str, str], width: int, progress: tqdm
) -> Iterator[np.ndarray]:
    """The files' vectors in order: (n, D) each, int8 or float. Several threads decode them."""
    at_once = max(1, BLOCK_VALUES // (BATCH_ROWS * max(1, width)))
    for block in in_order(_row_groups(files, columns, width), at_once):
        yield block
        progress.update(len(block))


def _row_groups(
    files: list[Path], columns: tuple[str, str], width: int
) -> Iterator[Iterator[np.ndarray]]:
    """The vectors of each row group, which may be read at the same time."""

    def matrices(file: Path, group: int, metadata: pq.FileMetaData) -> Iterator[np.ndarray]:
        for batch in _read_batches(file, list(columns), [group], metadata):
            yield _as_matrix(batch.select(columns), width, f"{file} column {columns[1]}")

    for file in files:
        metadata = read_metadata(file)
        for group in range(metadata.num_row_groups):
            yield matrices(file, group, metadata)


def _as_lists(vectors: pa.Array) -> pa.Array:
    # Arrow computes on lists, but not on the tensors that are stored as lists.
    return vectors.storage if isinstance(vectors, pa.ExtensionArray) else vectors


def _as_matrix(batch: pa.RecordBatch, width: int, where: str) -> np.ndarray:
    """(n, width) of a batch of ids and vectors; ``where`` names the column of vectors."""
    item_ids, vectors = batch.columns[0], _as_lists(batch.columns[1])
    # A vector that is null has no length: -1, which is no width.
    counts = pc.list_value_length(vectors)
    lengths = to_numpy(pc.fill_null(counts, -1) if counts.null_count else counts)
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        length = lengths[wrong[0]]
        raise InputError(
            f"{where} must have one length, {width}, got "
            f"{'null' if length < 0 else length} for item_id {item_ids[wrong[0]]}"
        )
    values = vectors.flatten()  # unlike .values, of these rows alone where they are a slice
    if values.null_count:
        row = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0] // width
        raise InputError(f"{where} must hold no nulls, got one for item_id {item_ids[row]}")
    return to_numpy(values).reshape(-1, width)
