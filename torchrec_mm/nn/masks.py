"""One way to refuse a wrong mask."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_mask(name: str, mask: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless ``mask`` is bool and of ``shape``."""
    if tuple(mask.shape) != tuple(shape) or mask.dtype != torch.bool:
        raise ValueError(
            f"{name} must be bool {tuple(shape)}, got {mask.dtype} {tuple(mask.shape)}"
        )
