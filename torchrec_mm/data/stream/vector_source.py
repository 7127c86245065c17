"""Where the item vectors of a batch come from.

Shape letters: U items, N items with a vector, M items asked for, V rows of a matrix to search in,
I candidates and T behaviours of a batch, D item-vector width.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.item_vectors.store import ItemVectors


class Fetched(NamedTuple):
    """A matrix that holds the vectors of a batch, and which row is whose, -1 without one.

    matrix: (V, D) int8 or float32 on the CPU. candidate_rows: (I,) int32 in [-1, V).
    behaviour_rows: (T,) int32, likewise.
    """

    matrix: Tensor
    candidate_rows: np.ndarray
    behaviour_rows: np.ndarray


class VectorSource(Protocol):
    """Item vectors by row; every result lies on the CPU.

    collective: all ranks have to ask at the same time, in the order of their steps.
    """

    collective: bool

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """(U,) int64 item ids to (U,) int64 rows in [0, N), -1 for an item without a vector."""

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(M,) int rows in [-1, N) to values (M, D), zeros for -1, and mask (M,), True if not."""

    def fetch(self, candidate_rows: np.ndarray, behaviour_rows: np.ndarray) -> Fetched:
        """(I,) and (T,) int32 rows in [-1, N), at least one, to what a search goes through."""


@dataclass(frozen=True)
class _LocalVectors:
    """What this process can look up alone."""

    vectors: ItemVectors
    collective = False

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        return self.vectors.rows(item_ids)

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        values, mask = self.vectors.gather(rows)
        return torch.from_numpy(values), torch.from_numpy(mask)


@dataclass(frozen=True)
class GatheredVectors(_LocalVectors):
    """Of live vectors: what a batch needs of a snapshot and of what came since, side by side."""

    def fetch(self, candidate_rows: np.ndarray, behaviour_rows: np.ndarray) -> Fetched:
        """The vectors of these rows, each once, and where each lies among them."""
        rows = np.concatenate([candidate_rows, behaviour_rows])
        wanted, places = np.unique(rows, return_inverse=True)
        values, _ = self.vectors.gather(wanted)
        places = np.where(rows < 0, -1, places).astype(np.int32)
        candidates, behaviours = np.split(places, [len(candidate_rows)])
        return Fetched(torch.from_numpy(values), candidates, behaviours)


@dataclass(frozen=True)
class MappedVectors(_LocalVectors):
    """The folder's file, mapped into memory: a host holds what its ranks have touched."""

    def fetch(self, candidate_rows: np.ndarray, behaviour_rows: np.ndarray) -> Fetched:
        """All vectors, and the rows as they are."""
        return Fetched(self._matrix, candidate_rows, behaviour_rows)

    @cached_property
    def _matrix(self) -> Tensor:
        with warnings.catch_warnings():  # that the file is mapped read-only: nobody writes here
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(np.asarray(self.vectors.values))
