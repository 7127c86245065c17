"""Confidence intervals against the density of Student's t, summed by hand."""

from math import exp, lgamma, pi, sqrt

import pytest

from torchrec_mm.metrics.intervals import mean_and_interval, student_quantile


def share_within(limit: float, degrees: int, steps: int = 20_000) -> float:
    """Integral of the density from -limit to limit, by Simpson's rule."""
    scale = exp(lgamma((degrees + 1) / 2) - lgamma(degrees / 2)) / sqrt(degrees * pi)
    width = limit / steps
    total = 0.0
    for i in range(steps + 1):
        weight = 1 if i in (0, steps) else 4 if i % 2 else 2
        total += weight * (1 + (i * width) ** 2 / degrees) ** (-(degrees + 1) / 2)
    return 2 * scale * total * width / 3


@pytest.mark.parametrize("degrees", [*range(1, 13), 20, 30, 31, 120, 10_000])
def test_19_of_20_draws_lie_within_the_quantile(degrees):
    quantile = student_quantile(degrees)
    assert share_within(quantile - 1e-3, degrees) < 0.95 < share_within(quantile + 1e-3, degrees)


def test_the_interval_of_three_seeds():
    mean, half = mean_and_interval([0.25, 0.5, 0.75])
    assert mean == 0.5
    assert half == pytest.approx(4.303 * 0.25 / sqrt(3))


def test_equal_seeds_leave_no_doubt_and_one_seed_tells_none():
    assert mean_and_interval([0.5, 0.5]) == (0.5, 0.0)
    assert mean_and_interval([0.5]) == (0.5, None)
