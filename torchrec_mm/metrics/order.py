"""Impressions as integers: one sort of unsigned numbers orders them by user, score and label.

A key holds, from its highest bit down: the user's rank (only where impressions are grouped by
user), 32 bits that order as the scores do, the label, and one bit for each slice.

Shape letters: N impressions.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

USER_SHIFT = 33  # above the 32 bits of a score and its label
ALL = ""  # the slice that every impression belongs to


def ordered_bits(scores: np.ndarray) -> np.ndarray:
    """(N,) uint32 that order, and tie, as (N,) float32 scores without NaN do."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 and 0.0 tie
    negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return bits ^ (negative | np.uint32(1 << 31))


def score_keys(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) uint64: score bits, then the label.

    Args:
        labels: (N,) int 0 or 1.
        scores: (N,) without NaN; those wider than float32 are replaced by their dense ranks.
    """
    if scores.dtype.kind == "f" and scores.dtype.itemsize <= 4:
        bits = ordered_bits(scores.astype(np.float32, copy=False))
    else:
        bits = np.unique(scores, return_inverse=True)[1].reshape(-1)
    keys = bits.astype(np.uint64)
    keys <<= np.uint64(1)
    keys |= labels.astype(np.uint64)
    return keys


def labels_and_scores(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 labels and float32 scores, -0.0 as 0.0, from keys made of float32 scores."""
    bits = (keys >> np.uint64(1)).astype(np.uint32)
    positive = (bits.view(np.int32) >> 31).view(np.uint32)
    scores = (bits ^ (~positive | np.uint32(1 << 31))).view(np.float32)
    return (keys & np.uint64(1)).astype(np.int64), scores


def user_ranks(user_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """(N,) uint64 dense rank of each impression's user, and how many users there are.

    Impressions of a request lie side by side, so runs of one user are looked up once.
    """
    new = starts(user_ids)
    users, rank_of_run = np.unique(user_ids[new], return_inverse=True)
    return rank_of_run.reshape(-1).astype(np.uint64)[np.cumsum(new) - 1], len(users)


def starts(values: np.ndarray) -> np.ndarray:
    """(N,) bool, True where a sorted array begins a new value."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


class SliceBits:
    """Membership of slices in the lowest bits of keys."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self.shift = np.uint64(len(self.names))

    def join(self, keys: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N,) uint64 keys with a bit for each slice; a slice without a mask gets nobody."""
        joined = keys << self.shift
        for bit, name in enumerate(self.names):
            if name in masks:
                joined |= np.asarray(masks[name], dtype=bool).astype(np.uint64) << np.uint64(bit)
        return joined

    def split(self, joined: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """``ALL``, then each slice, with its keys in the order given."""
        keys = joined >> self.shift
        yield ALL, keys
        for bit, name in enumerate(self.names):
            yield name, keys[(joined & np.uint64(1 << bit)) != 0]
