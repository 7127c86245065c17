"""Item vectors made from others: fewer, narrower, coarser, or without meaning.

Shape letters: N items, D and d widths.
"""

import hashlib
from pathlib import Path

import numpy as np

from torchrec_mm.item_vectors.control import random_origin, random_vectors
from torchrec_mm.item_vectors.neighbours import unit
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.study.recipe import CONSTANT, RANDOM, VectorsOf

SEED = 0
COARSE = 7  # steps of 4 bits to either side


def derive(given: Path, how: VectorsOf, folder: Path) -> None:
    """Write the vectors that ``how`` makes of a set into a new folder."""
    source = ItemVectors.open(given)
    item_ids, values = np.array(source.item_ids), np.array(source.values, np.float32)
    encoder, origin = source.encoder, f"{source.origin}, {name_of(how)}"
    if how.of == RANDOM:
        values = random_vectors(item_ids, width=source.width, seed=SEED)
        encoder, origin = "random", random_origin(width=source.width, seed=SEED)
    elif how.of == CONSTANT:
        values, encoder = np.ones_like(values), "constant"
    if how.width:
        values = narrowed(values, how.width)
    if how.bits == 4:
        values = coarsened(values)
    # By id, so that a larger share holds what a smaller one does.
    kept = np.array([_draw(item) < how.share for item in item_ids.tolist()])
    write_item_vectors(
        folder,
        item_ids[kept],
        values[kept],
        dtype="float32" if how.bits == 32 else "int8",
        encoder=encoder,
        modality=source.modality,
        origin=origin,
    )


def name_of(how: VectorsOf) -> str:
    """The folder's name: what makes it differ from the set itself."""
    said = [f"share={how.share:g}"] * (how.share < 1) + [f"width={how.width}"] * bool(how.width)
    return "-".join([how.of, *said, *([f"bits={how.bits}"] * (how.bits != 8))])


def narrowed(values: np.ndarray, width: int) -> np.ndarray:
    """(N, D) to (N, d) float32 on the d main axes of the unit vectors, not centred."""
    directions = unit(values)
    _, axes = np.linalg.eigh(directions.T @ directions)
    return (directions @ axes[:, ::-1][:, :width]).astype(np.float32)


def coarsened(values: np.ndarray) -> np.ndarray:
    """(N, D) float32 of unit vectors in 15 even steps, each vector's largest number the last."""
    directions = unit(values)
    scale = np.abs(directions).max(axis=1, keepdims=True) / COARSE
    return np.rint(directions / np.where(scale == 0, 1, scale)).astype(np.float32)


def _draw(item: int) -> float:
    """In [0, 1), the same for an item whatever the others."""
    digest = hashlib.blake2b(str(item).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48
