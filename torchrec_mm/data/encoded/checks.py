"""Numbers of an encoded data set, checked where they are read: whoever uses them trusts them.

Table rows go to FBGEMM and item numbers into kernels, which write wherever they are told to.
"""

from collections.abc import Iterable, Mapping
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


OF_CANDIDATES = ("candidates", "labels", "weights", "impression", "impression_number")


def list_kinds(columns: Iterable[str]) -> dict[str, int]:
    """By column of encoded requests the column of ``lengths.npy`` that says its lists' lengths.

    0 for those as long as the candidates, 1 for the behaviours; then, in their order, those of the
    further behaviour sequences.
    """
    kinds, sequences = {}, 0
    for name in columns:
        owner = name.partition("/")[0]
        if owner == "sequence":
            sequences += 1
        kinds[name] = {"sequence": 1 + sequences}.get(owner, int(owner not in OF_CANDIDATES))
    return kinds


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


def is_of_requests(column: str) -> bool:
    """Whether a list column of encoded requests holds bags, whose lengths are their own."""
    return column.startswith("request_bag/")


def check_offsets(offsets: np.ndarray, values: np.ndarray, lists: int, where: Path) -> None:
    """InputError, naming ``where``, unless ``offsets`` cut all ``values`` into so many lists."""
    whole = len(offsets) == lists + 1 and offsets[0] == 0 and offsets[-1] == len(values)
    if not whole or any(
        (np.diff(offsets[start : start + BLOCK + 1]) < 0).any() for start in range(0, lists, BLOCK)
    ):
        raise InputError(f"{where} must cut {len(values)} values into {lists} lists")


def check_counts(lengths: np.ndarray, where: Path) -> None:
    """InputError, naming ``where``, for (R, n) candidates and behaviours that no requests have."""
    for place, column in enumerate(lengths.T):
        name, least = ("behaviours", 0) if place else ("candidates", 1)
        if column.min(initial=least) < least:
            raise InputError(f"{where} must count at least {least} {name}, got {column.min()}")


def check_lengths(lists: Mapping[str, Jagged], lengths: np.ndarray, where: str) -> None:
    """Refuse lists that are not as long as ``lengths.npy`` says.

    Args:
        lists: by column, in their order; see ``list_kinds``.
        lengths: (n, 2 + sequences) of each request.

    Raises:
        InputError: naming the column.
    """
    for name, kind in list_kinds(lists).items():
        if is_of_requests(name):
            continue
        column = lists[name]
        if not np.array_equal(column.lengths, lengths[:, kind]):
            raise InputError(f"{where} column {name} must be as long as lengths.npy says")
