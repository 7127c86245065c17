"""Approximate nearest neighbours over millions of item vectors, by FAISS (extra ``neighbours``).

Few items: every vector is compared (``IndexFlatIP``). Many: an inverted file of about 4 sqrt(N)
lists, vectors stored as int8 differences to their list's centre (``IVF...,SQ8``); only the lists
nearest to a query are read. What the index finds is ranked again by the exact cosine.

A folder holds ``index.faiss`` and ``meta.json``, which names the vectors it was built from.

Source: Johnson et al., Billion-scale similarity search with GPUs, arXiv 1702.08734.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from torchrec_mm.documents import read_record
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.item_vectors.neighbours import NeighbourHits, check_queries, rank, unit
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import blocks_of

FORMAT = 1
INDEX_FILE, META_FILE = "index.faiss", "meta.json"
FLAT_ITEMS = 30_000  # up to so many, comparing with all is fast enough
SAMPLE_PER_LIST = 64  # vectors that the centres are learnt from
CANDIDATES = 2  # times k, ranked again by the exact cosine
LISTS_PER_PROBE = 32  # one in so many lists is read for a query
SEED = 0


@dataclass(frozen=True, kw_only=True)
class IndexMeta:
    """What ``meta.json`` says of an index, besides its ``format``.

    vectors: fingerprint of the item vectors. lists: of the inverted file, 0 compares with all.
    probes: lists read for a query. file_bytes: size of ``index.faiss``.
    """

    vectors: str
    items: int
    width: int
    lists: int
    probes: int
    file_bytes: int = 0


class FaissIndex:
    """Approximate search over item vectors; make one with ``build`` or ``open``."""

    def __init__(self, vectors: ItemVectors, index: Any, meta: IndexMeta) -> None:
        """``index``: a faiss index whose row i is row i of ``vectors``."""
        self.vectors = vectors
        self.index = index
        self.meta = meta
        if meta.lists:
            index.nprobe = meta.probes

    @classmethod
    def build(cls, vectors: ItemVectors) -> "FaissIndex":
        """Build in memory, N * (D + 8) bytes if large, always alike; InputError without faiss."""
        faiss = import_faiss()
        lists = 0 if len(vectors) <= FLAT_ITEMS else round(4 * len(vectors) ** 0.5)
        probes = -(-lists // LISTS_PER_PROBE)
        meta = IndexMeta(
            vectors=vectors.fingerprint,
            items=len(vectors),
            width=vectors.width,
            lists=lists,
            probes=probes,
        )
        recipe = f"IVF{lists},SQ8" if lists else "Flat"
        index = faiss.index_factory(vectors.width, recipe, faiss.METRIC_INNER_PRODUCT)
        if lists:
            index.train(unit_sample(vectors, lists * SAMPLE_PER_LIST))
        for block in _unit_blocks(vectors):
            index.add(block)
        return cls(vectors, index, meta)

    @classmethod
    def open(cls, folder: Path, vectors: ItemVectors) -> "FaissIndex":
        """Map what ``save`` wrote; an inverted file's vectors stay on disk until they are read.

        Raises:
            InputError: no such folder, a garbled file, an index of other vectors, or faiss is not
                installed.
        """
        faiss = import_faiss()
        meta = read_record(folder / META_FILE, IndexMeta, FORMAT)
        if meta.vectors != vectors.fingerprint:
            raise InputError(
                f"{folder} must be an index of {vectors.folder}, fingerprint "
                f"{vectors.fingerprint}, got one of {meta.vectors}"
            )
        file = folder / INDEX_FILE
        size = file.stat().st_size if file.is_file() else 0
        if size != meta.file_bytes:
            raise InputError(f"{file} must be {meta.file_bytes} bytes long, got {size}")
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise InputError(f"{file} must be a faiss index: {error}") from error
        found = (index.ntotal, index.d, getattr(index, "nlist", 0))
        if found != (meta.items, meta.width, meta.lists):
            raise InputError(f"{file} must be as {META_FILE} says, got {found}")
        return cls(vectors, index, meta)

    def save(self, folder: Path) -> None:
        """Write the index into a new folder, whole or not at all."""
        with new_folder(folder) as aside:
            file = aside / INDEX_FILE
            import_faiss().write_index(self.index, str(file))
            meta = asdict(self.meta) | {"file_bytes": file.stat().st_size}
            write_json(aside / META_FILE, {"format": FORMAT} | meta)

    def search(
        self, queries: np.ndarray, k: int, excluded: np.ndarray | None = None
    ) -> NeighbourHits:
        """Find about the k nearest items of each query; arguments as ``Neighbours.search``.

        Cosines are exact. A neighbour in a list that was not read is missed, and where the lists
        that were hold fewer than k items, the last slots are empty.
        """
        check_queries(queries, self.vectors.width)
        # One more: the query's own item may be among them, and be excluded.
        count = min(CANDIDATES * k + 1, len(self.vectors))
        _, rows = self.index.search(unit(queries).astype(np.float32), count)
        if excluded is not None:
            rows[rows == self.vectors.rows(excluded)[:, None]] = -1
        blocks = list(blocks_of(len(queries), count * self.vectors.width)) or [slice(0)]
        parts = [rank(queries[block], self.vectors, rows[block], k) for block in blocks]
        return NeighbourHits(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.cosines for part in parts]),
        )


def import_faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        rule = "search must be exact where faiss is not installed"
        raise InputError(f"{rule}: pip install 'faiss-cpu>=1.9'") from error
    return faiss


def unit_sample(vectors: ItemVectors, count: int) -> np.ndarray:
    """(min(count, N), D) float32 unit vectors of rows drawn by ``SEED``."""
    generator = np.random.default_rng(SEED)
    rows = generator.choice(len(vectors), min(count, len(vectors)), replace=False)
    values, _ = vectors.gather(np.sort(rows))
    return unit(values).astype(np.float32)


def _unit_blocks(vectors: ItemVectors) -> Iterator[np.ndarray]:
    """All vectors in order, some rows at a time: float32, unit length."""
    blocks = list(blocks_of(len(vectors), vectors.width))
    for block in tqdm(blocks, "index", unit="block", disable=None, leave=False):
        yield unit(vectors.values[block]).astype(np.float32)
