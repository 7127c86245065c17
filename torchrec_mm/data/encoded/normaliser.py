"""What training shows of a numeric feature, and its values in the range of a network's inputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchrec_mm.errors import InputError

CLIP = 5.0
# Shares of the values between which the spread is measured: the quartiles, unless both are one
# value, as where most are zero; then ever more of the values.
SPREADS = ((0.25, 0.75), (0.01, 0.99), (0.0, 1.0))
SHARES = (0.5, *(share for spread in SPREADS for share in spread))


@dataclass(frozen=True)
class Normaliser:
    """(x - centre) / scale, clipped to [-CLIP, CLIP]; NaN, which is null, stays.

    centre: the median. scale: the interquartile range, or the first of SPREADS above 0.
    log1p: whether x has already become log(1 + x).
    """

    centre: float
    scale: float
    log1p: bool = False

    @classmethod
    def of(cls, quantiles: Mapping[float, float], log1p: bool, column: str) -> "Normaliser":
        """Out of the quantiles at SHARES, or none where all values are null.

        Raises:
            InputError: naming ``column``, where there is nothing to learn from.
        """
        if not quantiles:
            raise InputError(f"{column} must hold values in training, got nulls only")
        for low, high in SPREADS:
            scale = quantiles[high] - quantiles[low]
            if scale > 0:
                return cls(quantiles[0.5], scale, log1p)
        raise InputError(f"{column} must hold two values in training, got {quantiles[0.5]} only")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64 to (n,) float32."""
        with np.errstate(over="ignore"):  # of a tiny scale: clipped all the same
            scaled = (values - self.centre) / self.scale
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)

    def array(self) -> np.ndarray:
        """(3,) float64, to be saved."""
        return np.array([self.centre, self.scale, self.log1p])

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Normaliser":
        centre, scale, log1p = array.tolist()
        return cls(centre, scale, bool(log1p))
