"""The gate: vectors of several modalities to one, however many an item has.

Shape letters: R rows, M modalities, D item-vector width of one modality.
"""

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

    def __init__(self, *, modalities: int, width: int) -> None:
        """``modalities``: M. ``width``: D."""
        super().__init__()
        first, last = (
            nn.Linear(modalities * width, HIDDEN_WIDTH),
            nn.Linear(HIDDEN_WIDTH, modalities),
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.weigh = nn.Sequential(first, nn.GELU(), last)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Fuse.

        Args:
            vectors: (R, M, D) float, unit length, zeros where missing.
            mask: (R, M) bool, True where present.

        Returns:
            (R, M * D) float32, unit length; zeros where nothing is present.
        """
        logits = self.weigh(vectors.flatten(1)).float().masked_fill(~mask, ABSENT)
        # exp(log / 2), not a square root: its gradient is finite at a weight of 0
        roots = torch.exp(torch.log_softmax(logits, dim=1) / 2)
        return (roots[:, :, None] * vectors.float()).flatten(1)
