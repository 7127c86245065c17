"""Arrays in files of their own."""

import os
from pathlib import Path

import numpy as np


def new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """Reserve a writable .npy: a full disk is an OSError here, and would be a bus error later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
