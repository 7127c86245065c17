"""Arrays of an encoded data set, memory-mapped: those of bags are two."""

from pathlib import Path

import numpy as np

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.checks import check_offsets, check_rows
from torchrec_mm.errors import InputError


def load_array(path: Path, dtype: type) -> np.ndarray:
    """A whole .npy file, mapped; InputError for a garbled one, or one of another dtype."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a whole .npy array: {error}") from error
    if array.dtype != dtype:
        raise InputError(f"{path} must be {np.dtype(dtype)}, got {array.dtype}")
    # As a plain array: of a memmap, every piece taken would be a memmap of its own.
    return array.view(np.ndarray)


def bag_files(folder: Path, place: int) -> tuple[Path, Path]:
    """Values and offsets of a bag of items, by number: its name need not be one of a file."""
    return folder / f"bag-{place}.values.npy", folder / f"bag-{place}.offsets.npy"


def open_bags(folder: Path, place: int, num_items: int, num_rows: int) -> Jagged:
    """Bags of all items; InputError for rows that no table has, or offsets that cut wrongly."""
    paths = bag_files(folder, place)
    values, offsets = load_array(paths[0], np.int32), load_array(paths[1], np.int64)
    check_rows(values, num_rows, f"{paths[0]}")
    check_offsets(offsets, values, num_items, paths[1])
    return Jagged(values, offsets)
