"""The gate: vectors of several modalities to one, however many an item has.

Shape letters: R rows, M modalities, D_m item-vector width of modality m.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

HIDDEN_WIDTH = 64
ABSENT = -1e4  # a logit whose weight is 0 in float32; finite, so that gradients are too


class ModalityGate(nn.Module):
    """Weigh the modalities that a row has and put its vectors side by side.

    fused = [sqrt(w_1) v_1; ...; sqrt(w_M) v_M] with w = softmax(MLP([v_1; ...; v_M])) over the
    modalities present, so the weights sum to 1 and unit vectors give a unit vector. The MLP's
    last layer starts at zero: untrained, M present modalities weigh 1/M each, and the cosine of
    two rows that have all of them is the mean of their cosines.

    Ours: the paper learns one modality.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """``widths``: D_m of the M modalities."""
        super().__init__()
        first, last = nn.Linear(sum(widths), HIDDEN_WIDTH), nn.Linear(HIDDEN_WIDTH, len(widths))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.weigh = nn.Sequential(first, nn.GELU(), last)

    def forward(self, vectors: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Fuse.

        Args:
            vectors: M of (R, D_m) float, unit length, zeros where missing.
            mask: (R, M) bool, True where present.

        Returns:
            (R, sum of D_m) float32, unit length; zeros where nothing is present.
        """
        logits = self.weigh(torch.cat([*vectors], dim=1)).float().masked_fill(~mask, ABSENT)
        # exp(log / 2), not a square root: its gradient is finite at a weight of 0
        roots = torch.exp(torch.log_softmax(logits, dim=1) / 2)
        parts = zip(roots.unbind(dim=1), vectors, strict=True)
        return torch.cat([root[:, None] * values.float() for root, values in parts], dim=1)
