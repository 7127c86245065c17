"""Semantic codes: each item vector as a few small numbers, by residual quantisation.

The first code names the nearest of K centres, the second the nearest centre of what the first left
over, and so on. Items that look alike share codes, and whoever has a vector has codes, new items
too: the codebooks are learned once and frozen.

Source: Rajput et al., Recommender Systems with Generative Retrieval, NeurIPS 2023, and Singh et
al., Better Generalization with Semantic IDs, RecSys 2024, with FAISS's ResidualQuantizer in the
place of an RQ-VAE.

Shape letters: L levels, K centres of each, U items, n vectors, D item-vector width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.item_vectors.faiss_index import import_faiss, unit_sample
from torchrec_mm.item_vectors.neighbours import unit
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import blocks_of

LEVELS = 3
MOST_BITS = 8  # 256 centres
VECTORS_PER_CENTRE = 32  # fewer, and centres would be single items
SAMPLE_PER_CENTRE = 256
NO_CODE = 0  # row of items without a vector
FIRST = 2  # row of code 0: rows 0 and 1 are of no single id, as in every table
CENTRES = "centres/item/vector_codes"  # named as arrays of vocabularies are


def code_tables(vectors: ItemVectors) -> dict[str, int]:
    """Rows of each level's table by feature, for the codebooks that vectors will have.

    InputError: faiss, which learns them, is not installed, or there are fewer than two vectors.
    """
    import_faiss()
    if len(vectors) < 2:
        raise InputError(f"vectors must be at least 2 to have codes, got {len(vectors)}")
    rows = FIRST + 2 ** bits_of(len(vectors))
    return {name_of(level): rows for level in range(LEVELS)}


def bits_of(num_vectors: int) -> int:
    """Of a code: fewer in a small catalogue."""
    bits = (num_vectors // VECTORS_PER_CENTRE).bit_length() - 1
    return min(max(bits, 1), MOST_BITS)


def name_of(level: int) -> str:
    """The feature; the first level is 0, its name ends in 1."""
    return f"vector_code_{level + 1}"


@dataclass(frozen=True)
class Codebooks:
    """centres: (L, K, D) float32, those of each level."""

    centres: np.ndarray

    @classmethod
    def learn(cls, vectors: ItemVectors) -> "Codebooks":
        """Learn those that ``code_tables`` has promised from a sample, always alike."""
        faiss, bits = import_faiss(), bits_of(len(vectors))
        quantizer = faiss.ResidualQuantizer(vectors.width, LEVELS, bits)
        quantizer.cp.min_points_per_centroid = 1  # fewer than it would like need no warning
        quantizer.max_beam_size = 1  # as ``codes`` finds them: level by level
        quantizer.train(unit_sample(vectors, SAMPLE_PER_CENTRE << bits))
        centres = faiss.vector_to_array(quantizer.codebooks)
        return cls(centres.reshape(LEVELS, 1 << bits, vectors.width))

    @property
    def tables(self) -> dict[str, int]:
        """Rows of each level's table by feature."""
        levels, centres, _ = self.centres.shape
        return {name_of(level): FIRST + centres for level in range(levels)}

    def codes(self, values: np.ndarray) -> np.ndarray:
        """(n, D) vectors of any length to (n, L) int32 codes in [0, K)."""
        rest = unit(values).astype(np.float32)
        codes = np.empty((len(rest), len(self.centres)), np.int32)
        for level, centres in enumerate(self.centres):
            # Nearest: |x - c|^2 without |x|^2, which is the same for all centres.
            distances = np.einsum("kd,kd->k", centres, centres) - 2 * (rest @ centres.T)
            codes[:, level] = distances.argmin(axis=1)
            rest -= centres[codes[:, level]]
        return codes

    def rows(self, vectors: ItemVectors, item_ids: np.ndarray) -> np.ndarray:
        """(L, U) int32 table rows of items, ``NO_CODE`` for those without a vector."""
        of_vectors = vectors.rows(item_ids)
        rows = np.full((len(self.centres), len(item_ids)), NO_CODE, np.int32)
        known = np.flatnonzero(of_vectors >= 0)
        for block in blocks_of(len(known), max(vectors.width, self.centres.shape[1])):
            values, _ = vectors.gather(of_vectors[known[block]])
            rows[:, known[block]] = self.codes(values).T + FIRST
        return rows

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all, with the ids of rows as vocabularies."""
        ids = {f"known_ids/item/{n}": np.arange(r - FIRST) for n, r in self.tables.items()}
        with new_file(path) as aside:
            save_file({CENTRES: self.centres, **ids}, aside)

    @classmethod
    def load(cls, path: Path) -> "Codebooks":
        """What ``save`` wrote; InputError if it is missing or garbled."""
        try:
            return cls(load_file(path)[CENTRES])
        except (OSError, KeyError, SafetensorError) as error:
            raise InputError(f"{path} must hold the codebooks of a run: {error}") from error
