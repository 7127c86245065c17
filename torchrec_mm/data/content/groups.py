"""Groups of items that must not be torn apart, and some of them held out.

Shape letters: N items, G groups.
"""

from collections.abc import Sequence

import numpy as np


def connected(alike: Sequence[np.ndarray]) -> np.ndarray:
    """Connected components: which items hang together, directly or through others.

    Every item points to a smaller one of its component; roots are hooked to smaller roots and
    pointers shortened until nothing changes, some log N rounds.

    ``alike``: arrays (N,) int64; item i belongs together with item ``alike[.][i]``.

    Returns:
        (N,) int64, the smallest item of each one's component.

    Source: FastSV, Zhang, Azad and Hu, PP 2020, arXiv:1910.05971.
    """
    parent = np.arange(len(alike[0]))
    while True:
        before = parent.copy()
        for other in alike:
            lower = np.minimum(parent, parent[other])
            for roots in (before, before[other]):
                np.minimum.at(parent, roots, lower)
            np.minimum(parent, lower, out=parent)
            np.minimum.at(parent, other, lower)
        parent = parent[parent]
        if (parent == before).all():
            return parent


def hold_out_groups(group: np.ndarray, item_ids: np.ndarray, share: float) -> np.ndarray:
    """Hold out whole groups, drawn by a hash of their smallest id, nearest to a share of the items.

    A group larger than the share is never held out.

    Args:
        group: (N,) int64, as ``connected`` gives it.
        item_ids: (N,) int64, ascending.
        share: in (0, 1).

    Returns:
        (N,) bool, True where held out; at least one group, unless all are too large.
    """
    wanted = max(1, round(share * len(group)))
    roots, root_of, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(_hashed(item_ids[roots]), kind="stable")
    order = order[sizes[order] <= wanted]
    taken = np.cumsum(sizes[order])
    last = int(np.abs(taken - wanted).argmin()) + 1 if len(order) else 0
    held_out = np.zeros(len(roots), dtype=bool)
    held_out[order[:last]] = True
    return held_out[root_of]


def _hashed(ids: np.ndarray) -> np.ndarray:
    """(n,) int64 -> (n,) uint64, evenly spread: SplitMix64."""
    bits = np.array(ids, np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
