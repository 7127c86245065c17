"""Exact quantiles of more numbers than fit in memory: each pass settles 16 bits of the answers."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

DIGIT_BITS = 16
SIGN = np.uint64(1 << 63)


def quantiles(
    blocks: Callable[[], Iterable[np.ndarray]], shares: Sequence[float]
) -> dict[float, float]:
    """The number below which each share of the others lies, the lower one of two; none of none.

    Args:
        blocks: gives all numbers once a call, (n,) float64 at a time; NaN does not count.
        shares: in [0, 1].
    """
    count = sum(int(np.count_nonzero(~np.isnan(block))) for block in blocks())
    if not count:
        return {}
    ranks = {share: int(share * (count - 1)) for share in shares}
    found = dict.fromkeys(shares, 0)
    for shift in range(64 - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = _digits_after({*found.values()}, blocks(), shift)
        for share, prefix in found.items():
            up_to = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(up_to, ranks[share], side="right"))
            ranks[share] -= int(up_to[digit - 1]) if digit else 0
            found[share] = (prefix << DIGIT_BITS) | digit
    return {share: _number(key) for share, key in found.items()}


def _digits_after(
    prefixes: set[int], blocks: Iterable[np.ndarray], shift: int
) -> dict[int, np.ndarray]:
    """How often each digit at ``shift`` follows each prefix."""
    counts = {prefix: np.zeros(1 << DIGIT_BITS, np.int64) for prefix in prefixes}
    for block in blocks:
        keys = _keys(block[~np.isnan(block)]) >> np.uint64(shift)
        digits = (keys & np.uint64((1 << DIGIT_BITS) - 1)).astype(np.int64)
        before = keys >> np.uint64(DIGIT_BITS)
        for prefix, counted in counts.items():
            counted += np.bincount(digits[before == prefix], minlength=len(counted))
    return counts


def _keys(numbers: np.ndarray) -> np.ndarray:
    """(n,) uint64 in the order of the (n,) float64."""
    bits = numbers.view(np.uint64)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _number(key: int) -> float:
    """The number that has the key."""
    bits = np.uint64(key)
    return float((bits ^ SIGN if bits & SIGN else ~bits).view(np.float64))
