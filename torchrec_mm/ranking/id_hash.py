"""A hash of ids that can be undone: no two ids share one."""

from torch import Tensor


def _signed(factor: int) -> int:
    """The int64 with the bits of ``factor``."""
    return factor - (1 << 64) if factor >> 63 else factor


# Odd, so each has an inverse modulo 2**64. Source: SplitMix64 (Steele et al., 2014).
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
MIX = tuple(map(_signed, _FACTORS))
UNMIX = tuple(_signed(pow(factor, -1, 1 << 64)) for factor in reversed(_FACTORS))


def mix(ids: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Spread ids over all 64 bits: (M,) int64 to (M,), one to one; UNMIX undoes MIX."""
    for factor in (*factors, 1):
        ids = (ids ^ ((ids >> 33) & 0x7FFFFFFF)) * factor
    return ids
