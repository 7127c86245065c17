"""A cosine and a row in one whole number, so that the largest number is the nearest item.

The upper half is the float32 cosine's bits in an order that integers compare alike, the lower half
counts rows downwards: of equal cosines the smaller row wins.
"""

import torch
from torch import Tensor

NOTHING = torch.iinfo(torch.int64).min  # the key of an empty slot, below all others
LAST_ROW = 2**32 - 1


def pack(cosines: Tensor, rows: Tensor) -> Tensor:
    """Keys of cosines (any shape, float32, not NaN) and rows (broadcast to it, in [0, 2^32))."""
    bits = (cosines + 0.0).view(torch.int32)  # -0 + 0 = 0
    return (_ordered(bits).long() << 32) | (LAST_ROW - rows)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines float32 and rows int64 of keys; -inf and -1 of ``NOTHING``."""
    empty = keys == NOTHING
    cosines = _ordered((keys >> 32).int()).view(torch.float32)
    rows = LAST_ROW - (keys & LAST_ROW)
    return cosines.masked_fill(empty, -torch.inf), rows.masked_fill(empty, -1)


def _ordered(bits: Tensor) -> Tensor:
    """Bits of floats as integers of the same order, and back: negative ones count downwards."""
    # The sign spread over all bits but itself: flips those of negative floats, and only theirs.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
