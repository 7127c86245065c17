"""The bridge between the phases: one frozen vector an item, on disk, looked up by id.

A folder holds ``item_ids.npy`` (N,) int64 strictly ascending, ``vectors.npy`` (N, D) int8 or
float32, and ``meta.json``. int8 means value/127. Both arrays are memory-mapped: opening costs no
memory, several processes share one copy.

Cosines have a meaning between vectors of one origin only: whoever is given two folders, or a model
and a folder, has them checked by ``check_origin``.

Shape letters: N items with a vector, M items asked for, D item-vector width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchrec_mm.documents import read_record
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex, as_ids
from torchrec_mm.item_vectors.live.pointer import POINTER_FILE, current_snapshot

FORMAT = 2
INT8_SCALE = 127
DTYPES: dict[str, np.dtype] = {"int8": np.dtype(np.int8), "float32": np.dtype(np.float32)}

ITEM_IDS_FILE = "item_ids.npy"
VECTORS_FILE = "vectors.npy"
META_FILE = "meta.json"


@dataclass(frozen=True)
class Meta:
    """What ``meta.json`` says of the vectors, besides its ``format``.

    origin: names encoder, preprocessing and modality; vectors of one origin may be mixed, those of
    new items with those of old ones, and no others.
    fingerprint: names the exact ids and values; equal folders have equal fingerprints.
    """

    items: int
    width: int
    dtype: str
    encoder: str
    modality: str
    origin: str
    fingerprint: str


class ItemVectors:
    """All item vectors of one encoder and modality. Read-only; open with ``ItemVectors.open``.

    item_ids: (N,) int64 memmap, strictly ascending.
    values: (N, D) memmap, int8 (value/127) or float32 (unit length).

    >>> two = [[3.0, 4.0], [0.0, 2.0]]
    >>> write_item_vectors(folder, [30, 10], two, dtype="float32", encoder="a", modality="text")
    >>> values, mask = ItemVectors.open(folder).lookup([10, 20, 30])
    >>> mask.tolist(), values[2].tolist()
    ([True, False, True], [0.6000000238418579, 0.800000011920929])
    """

    def __init__(self, folder: Path, item_ids: np.ndarray, values: np.ndarray, meta: Meta) -> None:
        self.folder = folder
        self.item_ids = item_ids
        self.values = values
        self.meta = meta
        self._index = IdIndex(item_ids)

    @classmethod
    def open(cls, folder: Path | str) -> "ItemVectors":
        """Map the folder's arrays and check that they belong together.

        ``folder``: as ``write_item_vectors`` or ``apps.import_vectors`` made it; of a live index,
        what it published last.

        Raises:
            InputError: no such folder, a missing or garbled file, an unknown format version, ids
                out of order, or arrays that disagree with ``meta.json``.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder} must be a folder of item vectors: no such folder")
        if (folder / POINTER_FILE).exists():
            folder = current_snapshot(folder)
        cure = ": make the item vectors again with apps.embed_items or apps.import_vectors"
        meta = read_record(folder / META_FILE, Meta, FORMAT, of_another=cure)
        if meta.dtype not in DTYPES:
            path = folder / META_FILE
            raise InputError(f"{path} dtype must be int8 or float32, got {meta.dtype!r}")
        item_ids = map_array(folder / ITEM_IDS_FILE, (meta.items,), np.dtype(np.int64))
        values = map_array(folder / VECTORS_FILE, (meta.items, meta.width), DTYPES[meta.dtype])
        if not (item_ids[1:] > item_ids[:-1]).all():
            raise InputError(f"{folder / ITEM_IDS_FILE} must be strictly ascending, and is not")
        return cls(folder, item_ids, values, meta)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder again instead of receiving a copy of the vectors."""
        return ItemVectors.open, (self.folder,)

    def __len__(self) -> int:
        return self.meta.items

    @property
    def width(self) -> int:
        return self.meta.width

    @property
    def dtype(self) -> np.dtype:
        """Numpy's int8 or float32."""
        return DTYPES[self.meta.dtype]

    @property
    def encoder(self) -> str:
        return self.meta.encoder

    @property
    def modality(self) -> str:
        return self.meta.modality

    @property
    def origin(self) -> str:
        return self.meta.origin

    @property
    def fingerprint(self) -> str:
        return self.meta.fingerprint

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """Row of each item: int64 of the same shape as ``item_ids``, -1 where it has no vector."""
        return self._index.rows(as_ids(item_ids, "item_ids"))

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copy the vectors of some rows.

        ``rows``: (M,) int64 in [-1, N), as ``rows`` gives them; any shape works.

        Returns:
            values (M, D) in the stored dtype, zeros where the row is -1; and
            mask (M,) bool, True where the item has a vector.
        """
        rows = np.asarray(rows, dtype=np.int64)
        mask = rows >= 0
        if not mask.any():
            return np.zeros((*rows.shape, self.width), self.dtype), mask
        # As a plain array: of a memmap, every piece taken would be a memmap of its own.
        values = np.take(np.asarray(self.values), np.where(mask, rows, 0), axis=0)
        values[~mask] = 0
        return values, mask

    def lookup(self, item_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``gather(rows(item_ids))``: values (M, D) and mask (M,) bool, True = has a vector.

        ``item_ids``: int64 of any shape (M,), which values and mask share.
        """
        return self.gather(self.rows(item_ids))

    def with_values(self, values: np.ndarray, meta: Meta) -> "ItemVectors":
        """The same items, by the same rows, with other numbers in the place of their vectors.

        Args:
            values: (N, any) int8 or float32, a row for each of ``values`` as they are.
            meta: that says so.
        """
        return ItemVectors(self.folder, self.item_ids, values, meta)

    def coverage(self, item_ids: np.ndarray) -> float:
        """Share of ``item_ids`` (with their repeats) that have a vector; 1.0 of no ids."""
        rows = self.rows(item_ids)
        return float((rows >= 0).mean()) if rows.size else 1.0


def map_array(path: Path, shape: tuple[int, ...], dtype: Any = np.int64) -> np.ndarray:
    """Map an ``.npy`` file, read-only; InputError if not whole or not as ``meta.json`` says."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} must exist: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} must be a whole .npy array: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        rule = f"{path} must be {np.dtype(dtype)} {shape} as {META_FILE} says"
        raise InputError(f"{rule}, got {array.dtype} {array.shape}")
    return array


def check_origin(vectors: ItemVectors, origin: str, whose: str) -> None:
    """Refuse vectors of another encoder, preprocessing or modality than those used before.

    Args:
        vectors: that are given now.
        origin: of those before.
        whose: what was made from those, e.g. "make runs/make".

    Raises:
        InputError: the origins differ.
    """
    if vectors.origin != origin:
        rule = f"vectors must have the origin of {whose}, {origin}"
        raise InputError(f"{rule}, got {vectors.origin} of {vectors.folder}")
