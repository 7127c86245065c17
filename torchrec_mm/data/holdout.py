"""What encoders are judged by: the latest searches, or items that training never sees.

Shape letters: N items, S searches.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def hold_out_latest(num_searches: int, holdout: float) -> np.ndarray:
    """(S,) bool, True for the last share in time, at least one; searches are in order of time."""
    count = max(1, round(holdout * num_searches))
    return np.arange(num_searches) >= num_searches - count


def hold_out_items(
    item_ids: np.ndarray, contents: Sequence[np.ndarray], holdout: float
) -> np.ndarray:
    """Choose items by a hash of their ids, together with all that look or read alike.

    Items with an equal content of any modality are in one group, and so are those that a chain of
    such items joins. Groups are taken in the order of a hash until the share is reached.

    Args:
        item_ids: (N,) int64, ascending.
        contents: (N,) int64 of each modality, equal where the content is, -1 where missing.
        holdout: share of the items, in (0, 1).

    Returns:
        (N,) bool, True where held out.
    """
    group = alike(len(item_ids), contents)
    members = np.bincount(group, minlength=len(group))
    first = np.flatnonzero(members)
    order = first[np.argsort(_hashes(item_ids[first]), kind="stable")]
    before = np.cumsum(members[order]) - members[order]
    chosen = np.zeros(len(group), dtype=bool)
    chosen[order[before < holdout * len(group)]] = True
    return chosen[group]


def alike(num_items: int, contents: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) int64, the smallest row of each row's group; arguments as of ``hold_out_items``."""
    label = np.arange(num_items)
    while True:
        before = label
        for content in contents:
            label = _smallest_of_equal(label, content)
        label = label[label]
        if np.array_equal(label, before):
            return label


def _smallest_of_equal(label: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Each row's smallest label among the rows of its content."""
    has = content >= 0
    distinct, number = np.unique(content[has], return_inverse=True)
    smallest = np.full(len(distinct), len(label))
    np.minimum.at(smallest, number, label[has])
    lowered = label.copy()
    lowered[has] = smallest[number]
    return lowered


def _hashes(ids: np.ndarray) -> np.ndarray:
    """(n,) uint64 that look random and follow from the ids alone."""
    digests = [blake2b(value.tobytes(), digest_size=8).digest() for value in ids]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
