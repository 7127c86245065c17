"""Numeric features as they enter a network: a flag for null beside each value.

Shape letters: I impressions, G numeric features of an impression and its item, P of any.
"""

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays


def target_numbers(items: EncodedItems, share: RequestArrays) -> np.ndarray | None:
    """(I, G) float32: numbers of each impression's item, then its own; None without any."""
    parts = [] if items.numbers is None else [items.numbers[share.candidates.values]]
    if share.impression_numbers is not None:
        parts.append(share.impression_numbers)
    return np.concatenate(parts, axis=1) if parts else None


def with_flags(numbers: np.ndarray | None) -> Tensor | None:
    """(n, P) float32, NaN for null, to (n, 2 P): values, 0 for null, and flags, 1 for null."""
    if numbers is None:
        return None
    is_null = np.isnan(numbers)
    values = np.where(is_null, np.float32(0), numbers)
    return torch.from_numpy(np.concatenate([values, is_null.astype(np.float32)], axis=1))
