"""The control: vectors without meaning."""

import numpy as np


def random_vectors(item_ids: np.ndarray, *, width: int, seed: int) -> np.ndarray:
    """A direction drawn evenly for each item, from its id and the seed alone.

    Args:
        item_ids: (N,) int64.
        width: D.
        seed: at least 0.

    Returns:
        (N, D) float32, of any length.
    """
    vectors = np.empty((len(item_ids), width), dtype=np.float32)
    keys = np.stack([np.full(len(item_ids), seed), item_ids], axis=1).astype(np.int64)
    for row, key in zip(vectors, keys.view(np.uint64), strict=True):
        generator = np.random.Generator(np.random.Philox(key=key))
        generator.standard_normal(out=row, dtype=np.float32)
    return vectors


def random_origin(*, width: int, seed: int) -> str:
    """The origin that all of them share."""
    return f"random-{seed}-{width}"
