"""Losses of plain tensors, for contrastive pre-training.

Imports torch and, for GPUs, a kernel. Losses are one a query, never reduced: whoever calls knows
which queries count. What ``__all__`` names is public.

Read first: info_nce.py
"""

from torchrec_mm.losses.info_nce import Negatives, info_nce
from torchrec_mm.losses.triplet import triplet_loss

__all__ = ["Negatives", "info_nce", "triplet_loss"]
