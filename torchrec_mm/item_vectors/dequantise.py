"""Stored vectors as numbers to compute with."""

import torch
from torch import Tensor

from torchrec_mm.item_vectors.store import INT8_SCALE


def dequantise(values: Tensor) -> Tensor:
    """Stored values as float32: int8 divided by 127, float32 as it is. Any shape."""
    return values.float() / INT8_SCALE if values.dtype == torch.int8 else values.float()
