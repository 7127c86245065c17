"""Write item vectors: sorted by id, unit length, checked, whole or not at all.

Blocks of vectors are written straight to their sorted place in a memory-mapped file, so only the
ids and one block are ever in memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from torchrec_mm.columns.npy_files import new_array
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.ids import as_ids, sort_unique
from torchrec_mm.item_vectors.store import (
    DTYPES,
    FORMAT,
    INT8_SCALE,
    ITEM_IDS_FILE,
    META_FILE,
    VECTORS_FILE,
    Meta,
)

BLOCK_VALUES = 1 << 22  # numbers handled at a time: 16 MiB of float32


def write_item_vectors(
    folder: Path | str,
    item_ids: np.ndarray | Sequence[int],
    vectors: np.ndarray | Sequence[Sequence[float]],
    *,
    dtype: str,
    encoder: str,
    modality: str,
    origin: str | None = None,
) -> None:
    """Write vectors that are in memory. See ``write_blocks`` for the rules.

    Args:
        folder: the new folder.
        item_ids: (N,) int64 in any order.
        vectors: (N, D) float of any length, or int8 (value/127).
        dtype: "int8" or "float32", how they are stored.
        encoder: who made them; goes into ``meta.json``.
        modality: that they were made from, "image", "text" or "fused"; goes into ``meta.json``.
        origin: that they share with other vectors, see ``Meta``; None: with no others.

    Raises:
        InputError: as ``write_blocks``, and vectors that are not one row an item.

    >>> write_item_vectors(folder, [5, -3], np.eye(2), dtype="int8", encoder="a", modality="image")
    >>> ItemVectors.open(folder).values.tolist()
    [[0, 127], [127, 0]]
    """
    folder, item_ids = Path(folder), as_ids(item_ids, "item_ids")
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(item_ids):
        raise InputError(f"vectors must be (N, D), N = {len(item_ids)}, got {vectors.shape}")
    write_blocks(
        folder,
        item_ids,
        (vectors[block] for block in blocks_of(*vectors.shape)),
        width=vectors.shape[1],
        dtype=dtype,
        encoder=encoder,
        modality=modality,
        origin=origin,
    )


def write_blocks(
    folder: Path,
    item_ids: np.ndarray,
    blocks: Iterable[np.ndarray],
    *,
    width: int,
    dtype: str,
    encoder: str,
    modality: str,
    origin: str | None = None,
) -> None:
    """Write vectors that arrive block by block, in the order of ``item_ids``.

    Floats are L2-normalised; stored as int8 they become trunc(127 * v). int8 stays as it is when
    stored as int8, and is dequantised and normalised when stored as float32.

    Args:
        folder: the new folder.
        item_ids: (N,) int64 in any order.
        blocks: (n, D) float or int8 each, N rows in all.
        width: D.
        dtype: "int8" or "float32", how they are stored.
        encoder: who made them: "off-the-shelf", "scl", "random", "imported", ...
        modality: that they were made from: "image", "text" or "fused".
        origin: names encoder, preprocessing and modality, see ``Meta``; None where nothing is known
            of them: then it is "imported-" and these ids and values, and no others can join them.

    Raises:
        InputError: no item, an id given twice, a vector that is zero or holds NaN or infinity
            (its item_id is named), or an existing ``folder``.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be int8 or float32, got {dtype}")
    write_stored(
        folder,
        item_ids,
        _stored(blocks, item_ids, dtype),
        width=width,
        dtype=dtype,
        encoder=encoder,
        modality=modality,
        origin=origin,
    )


def write_stored(
    folder: Path,
    item_ids: np.ndarray,
    blocks: Iterable[np.ndarray],
    *,
    width: int,
    dtype: str,
    encoder: str,
    modality: str,
    origin: str | None = None,
) -> None:
    """``write_blocks`` of vectors that are as ``as_stored`` makes them: not a bit changes.

    Raises:
        InputError: no item, an id given twice, or an existing ``folder``.
    """
    if len(item_ids) == 0 or width == 0:
        raise InputError(f"vectors must not be empty, got {len(item_ids)} items of width {width}")
    order = sort_unique(item_ids, "item_id")
    # Blocks come in the caller's order: the inverse says where each row goes.
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    with new_folder(folder) as aside:
        sorted_ids = item_ids[order]
        np.save(aside / ITEM_IDS_FILE, sorted_ids)
        values = new_array(aside / VECTORS_FILE, (len(item_ids), width), DTYPES[dtype])
        start = 0
        for block in blocks:
            stop = start + len(block)
            values[place[start:stop]] = block
            start = stop
        assert start == len(item_ids), f"blocks hold {start} vectors for {len(item_ids)} ids"
        fingerprint = _fingerprint(sorted_ids, values)
        meta = Meta(
            items=len(item_ids),
            width=width,
            dtype=dtype,
            encoder=encoder,
            modality=modality,
            origin=origin or f"imported-{fingerprint[:16]}",
            fingerprint=fingerprint,
        )
        write_json(aside / META_FILE, {"format": FORMAT} | asdict(meta))


def blocks_of(items: int, width: int) -> Iterator[slice]:
    """Slices that cut (items, width) into pieces of at most ``BLOCK_VALUES`` numbers."""
    rows = max(1, BLOCK_VALUES // max(1, width))
    for start in range(0, items, rows):
        yield slice(start, min(start + rows, items))


def as_stored(vectors: np.ndarray, item_ids: np.ndarray, dtype: str) -> np.ndarray:
    """One block, (n, D) of any length, as it goes to disk; int8 that is stored once stays so.

    Raises:
        InputError: a vector that is zero or not finite; its item_id, of (n,), is named.
    """
    stored = vectors
    if vectors.dtype != np.int8 or dtype != "int8":
        stored = _normalise(vectors, item_ids)
        if dtype == "int8":
            stored = np.trunc(INT8_SCALE * stored).astype(np.int8)
    zero = np.flatnonzero(~stored.any(axis=1))
    if len(zero):
        raise InputError(f"vector must not be zero in {dtype}, got item_id {item_ids[zero[0]]}")
    return stored.astype(DTYPES[dtype], copy=False)


def _stored(blocks: Iterable[np.ndarray], item_ids: np.ndarray, dtype: str) -> Iterator[np.ndarray]:
    """Each block as it goes to disk; (n, D) of any length, in the order of ``item_ids``."""
    start = 0
    for block in blocks:
        yield as_stored(block, item_ids[start : start + len(block)], dtype)
        start += len(block)


def _normalise(vectors: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """(n, D) float64 of unit length, no value beyond one.

    Dividing by the largest value first: squares can overflow, and the length is one at least.
    """
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wrong = np.flatnonzero(~np.isfinite(largest[:, 0]))
    if len(wrong):
        raise InputError(f"vector must be finite, got NaN or Inf for item_id {item_ids[wrong[0]]}")
    wrong = np.flatnonzero(largest[:, 0] == 0)
    if len(wrong):
        raise InputError(f"vector must not be zero, got item_id {item_ids[wrong[0]]}")
    wide /= largest
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _fingerprint(sorted_ids: np.ndarray, values: np.ndarray) -> str:
    """sha256 of width, dtype, ids and values, read block by block."""
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(np.ascontiguousarray(sorted_ids).data)
    for block in blocks_of(*values.shape):
        digest.update(np.ascontiguousarray(values[block]).data)
    return digest.hexdigest()
