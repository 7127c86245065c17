"""Numbers of an encoded data set, checked where they are read: whoever uses them trusts them.

Table rows go to FBGEMM and item numbers into kernels, which write wherever they are told to.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.normaliser import CLIP
from torchrec_mm.errors import InputError

BLOCK = 1 << 22  # of a memory-mapped array at a time


def check_rows(values: np.ndarray, num_rows: int, where: str, of: str = "rows of a table") -> None:
    """Refuse numbers that are not in [0, num_rows), or no int32: (n,).

    Raises:
        InputError: naming ``where`` and the first of them; ``of`` says what has ``num_rows``.
    """
    if values.dtype != np.int32:
        raise InputError(f"{where} must be int32, got {values.dtype}")
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        # As unsigned numbers, negative ones are the largest: one pass finds both.
        if int(block.view(np.uint32).max()) >= num_rows:
            wrong = block[(block < 0) | (block >= num_rows)][0]
            raise InputError(f"{where} must be {of} of {num_rows}, got {wrong}")


def check_numbers(values: np.ndarray, where: str) -> None:
    """InputError, naming ``where``, for numbers that no ``Normaliser`` gives."""
    if values.dtype != np.float32:
        raise InputError(f"{where} must be float32, got {values.dtype}")
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        wrong = np.abs(block) > CLIP
        if wrong.any():
            raise InputError(f"{where} must be in [-{CLIP}, {CLIP}], got {block[wrong][0]}")


def is_of_candidates(column: str) -> bool:
    """Whether a list column of encoded requests is as long as the candidates, or the behaviours."""
    owner = column.partition("/")[0]
    return owner in ("candidates", "labels", "weights", "impression", "impression_number")


def weight_sums(weights: np.ndarray, labels: np.ndarray, candidates: Jagged) -> np.ndarray:
    """(R, 2) float64: what the impressions of each request weigh, and those that were clicked.

    ``weights``: (impressions,) float32. ``labels``: (impressions,) int8.
    """
    owners = candidates.owners()
    both = (weights, weights * labels)
    return np.stack([np.bincount(owners, each, len(candidates)) for each in both], axis=1)


def check_weights(
    weights: np.ndarray, labels: np.ndarray, candidates: Jagged, sums: np.ndarray, where: str
) -> None:
    """InputError, naming ``where``, for weights below 0 or not finite, or other ``sums``."""
    if weights.dtype != np.float32 or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"{where} column weights must be finite float32 of at least 0")
    if not np.array_equal(weight_sums(weights, labels, candidates), sums):
        raise InputError(f"{where} column weights must have the sums that lie beside it")


def check_counts(lengths: np.ndarray, where: Path) -> None:
    """InputError, naming ``where``, for (R, 2) candidates and behaviours that no requests have."""
    for column, name, least in zip(lengths.T, ("candidates", "behaviours"), (1, 0), strict=True):
        if column.min(initial=least) < least:
            raise InputError(f"{where} must count at least {least} {name}, got {column.min()}")


def check_lengths(lists: Mapping[str, Jagged], lengths: np.ndarray, where: str) -> None:
    """Refuse lists that are not as long as ``lengths.npy`` says.

    Args:
        lists: by column; see ``is_of_candidates``.
        lengths: (n, 2), candidates and behaviours of each request.

    Raises:
        InputError: naming the column.
    """
    for name, column in lists.items():
        kind = 0 if is_of_candidates(name) else 1
        if not np.array_equal(column.lengths, lengths[:, kind]):
            raise InputError(f"{where} column {name} must be as long as lengths.npy says")
