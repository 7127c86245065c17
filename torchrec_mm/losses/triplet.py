"""Triplet loss on hard negatives: what was bought should be closer than what was only clicked.

Shape letters: B queries, H hard-negative slots, D vector width.
"""

import torch
from torch import Tensor


def triplet_loss(
    query: Tensor, positive: Tensor, hard: Tensor, hard_mask: Tensor, margin: float
) -> Tensor:
    """Mean over a query's hard negatives of max(0, d(q, p) - d(q, h) + margin).

    d is the cosine distance, 1 - cosine, in [0, 2].

    Args:
        query: (B, D) float, unit vectors; receives the gradient.
        positive: (B, D) float, unit vectors.
        hard: (B, H, D) float, unit vectors; anything finite in padding.
        hard_mask: (B, H) bool, True where the slot holds a hard negative.
        margin: how much closer the positive should be, as a cosine distance.

    Returns:
        (B,) float, at least 0; 0 for a query without hard negatives.

    Raises:
        ValueError: ``hard_mask`` is not bool, or not (B, H).

    Source: Schroff et al., CVPR 2015, arXiv:1503.03832, eq. 2; hard negatives that were clicked and
    not bought as in Sheng et al., CIKM 2024, arXiv:2407.19467. Ours: the mean, and cosines.

    >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0]]])
    >>> triplet_loss(east, east, north, torch.tensor([[True]]), margin=1.25)
    tensor([0.2500])
    """
    if hard_mask.shape != hard.shape[:2] or hard_mask.dtype != torch.bool:
        raise ValueError(
            f"hard_mask must be bool (B, H) = {tuple(hard.shape[:2])}, "
            f"got {hard_mask.dtype} {tuple(hard_mask.shape)}"
        )
    positive_cosine_B = (query * positive).sum(dim=1)
    hard_cosine_BH = torch.einsum("bd,bhd->bh", query, hard)
    violation_BH = (hard_cosine_BH - positive_cosine_B[:, None] + margin).clamp(min=0)
    violation_BH = violation_BH.masked_fill(~hard_mask, 0)
    return violation_BH.sum(dim=1) / hard_mask.sum(dim=1).clamp(min=1)
