"""How sure a mean over a few seeds is."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

# 97.5 % quantiles of Student's t for 1 to 10 degrees of freedom: Abramowitz & Stegun, Handbook of
# Mathematical Functions (1964), table 26.10.
_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.959964


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % confidence interval by Student's t.

    The interval takes the values as independent draws from one normal distribution.

    Args:
        values: one figure a seed, at least one.

    Returns:
        The mean, and t * s / sqrt(n) with the sample's deviation s; None for a single value.
    """
    count = len(values)
    if count < 2:
        return fmean(values), None
    return fmean(values), student_quantile(count - 1) * stdev(values) / sqrt(count)


def student_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t with ``degrees`` >= 1 degrees of freedom, within 0.001."""
    if degrees <= len(_QUANTILES):
        return _QUANTILES[degrees - 1]
    x, n = _NORMAL, degrees  # the expansion 26.7.5 of the same handbook
    return (
        x
        + (x**3 + x) / (4 * n)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * n**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * n**3)
    )
