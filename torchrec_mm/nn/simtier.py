"""SimTier: turn "how alike are my past items and this one?" into a small histogram.

Shape letters: R requests, C candidates, L behaviours, D item-vector width, N tiers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.nn.masks import check_mask


def cosine_similarity(targets: Tensor, behaviours: Tensor) -> Tensor:
    """Every candidate of a request against every behaviour: one matrix product a request.

    Args:
        targets: (R, C, D) float, any length; a zero vector gives cosine 0.
        behaviours: (R, L, D) float.

    Returns:
        (R, C, L) float cosines in [-1, 1] up to rounding.

    Raises:
        ValueError: requests or widths differ. One target item a request is (R, 1, D).

    >>> cosine_similarity(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, -3.0]]]))
    tensor([[[1., 0.]]])
    """
    if (targets.shape[:-2], targets.shape[-1]) != (behaviours.shape[:-2], behaviours.shape[-1]):
        raise ValueError(
            "targets and behaviours must be (R, C, D) and (R, L, D), "
            f"got {tuple(targets.shape)} and {tuple(behaviours.shape)}"
        )
    return F.normalize(targets, dim=-1) @ F.normalize(behaviours, dim=-1).mT


class SimTier(nn.Module):
    """Count a user's behaviours per tier of cosine similarity to the target item.

    The range [-1, 1] is cut into ``num_tiers`` equal tiers; tier 0 holds the most unlike
    behaviours, the last tier the near-duplicates of the target item. Counts are raw: ten
    look-alikes are stronger evidence than one. No parameters, no gradient: a count is flat
    almost everywhere, and the vectors are frozen in the ranking phase anyway.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467 ("SimTier"). Ours: masked pairs count
    nowhere, and the cosines of a request are computed once for all its candidates.

    >>> cosine = torch.tensor([[[0.9, 0.8, -0.9, 0.7]]])
    >>> mask = torch.tensor([[[True, True, True, False]]])
    >>> SimTier(4)(cosine, mask)
    tensor([[[1., 0., 0., 2.]]])
    """

    def __init__(self, num_tiers: int) -> None:
        """``num_tiers``: N, at least 2; the paper's is 20."""
        super().__init__()
        if num_tiers < 2:
            raise ValueError(f"num_tiers must be at least 2, got {num_tiers}")
        self.num_tiers = num_tiers

    @torch.no_grad()
    def forward(self, cosine: Tensor, pair_mask: Tensor) -> Tensor:
        """Histogram each candidate's cosines.

        Args:
            cosine: (R, C, L) float in [-1, 1]; masked pairs may hold anything, NaN included.
            pair_mask: (R, C, L) bool, True where the behaviour is real and both items have a
                vector: "unknown" is not "unlike".

        Returns:
            (R, C, N) float32, behaviours per tier; sums to ``pair_mask.sum(-1)``.

        Raises:
            ValueError: the mask is not bool or not of the shape of ``cosine``.
        """
        check_mask("pair_mask", pair_mask, cosine.shape)
        tier = ((cosine + 1) * (self.num_tiers / 2)).long()
        # Cosine 1.0 joins the last tier; a masked pair, some tier or other, where it counts 0.
        tier = tier.clamp(0, self.num_tiers - 1)
        counts = torch.zeros(
            *cosine.shape[:-1], self.num_tiers, dtype=torch.float32, device=cosine.device
        )
        return counts.scatter_add_(-1, tier, pair_mask.float())
