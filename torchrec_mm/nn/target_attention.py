"""DIN target attention: what of my past bears on this item?

Shape letters: R requests, C candidates, L behaviours, E embedding width, H hidden width.
"""

import torch
from torch import Tensor, nn

from torchrec_mm.nn.masks import check_mask


class TargetAttention(nn.Module):
    """Weigh a request's behaviours anew for each of its candidates.

    The activation unit is a small network on [h, t, h - t, h * t] for behaviour h and target t.
    Its first layer is linear in h, t and h * t, so the parts in h and t alone are computed once a
    request, and only the product meets every pair. Weights are normalised over the real
    behaviours; a request without any gets a zero vector.

    Source: Zhou et al., KDD 2018, arXiv:1706.06978, section 4.3. Ours: softmax over the weights.

    >>> targets, behaviours = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    >>> nobody = torch.zeros(2, 5, dtype=torch.bool)
    >>> TargetAttention(8)(targets, behaviours, nobody).count_nonzero()
    tensor(0)
    """

    def __init__(self, width: int, *, hidden: int = 16, side_information: bool = False) -> None:
        """Draw the weights.

        Args:
            width: E. hidden: H, of the activation unit.
            side_information: a cosine per pair joins the activation unit and the result.
        """
        super().__init__()
        self.behaviour = nn.Linear(width, hidden)
        self.target = nn.Linear(width, hidden, bias=False)
        self.product = nn.Parameter(torch.empty(hidden, width))
        nn.init.normal_(self.product, std=width**-0.5)
        self.side = nn.Parameter(torch.ones(hidden)) if side_information else None
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        behaviour_mask: Tensor,
        side: Tensor | None = None,
        side_mask: Tensor | None = None,
    ) -> Tensor:
        """Pool the behaviours of each request, once for each candidate.

        Args:
            targets: (R, C, E) float, one row a candidate; rows of padding give any finite result.
            behaviours: (R, L, E) float, padding may hold anything.
            behaviour_mask: (R, L) bool, True where real.
            side: (R, C, L) float, side information of each pair; only if built with it.
            side_mask: (R, C, L) bool, True where ``side`` is known.

        Returns:
            (R, C, E) float weighted means of behaviours, zeros for an empty history; with side
            information (R, C, E + 1), the last being the weighted mean of the known ``side``.

        Raises:
            ValueError: a mask is not bool or not of its shape, or ``side`` and ``side_mask`` are
                given to a module built without them, or are not to one built with them.
        """
        check_mask("behaviour_mask", behaviour_mask, behaviours.shape[:2])
        if {side is None, side_mask is None} != {self.side is None}:
            raise ValueError(
                "side and side_mask must be given exactly when built with side_information"
            )
        # Before anything is weighed: 0 times a NaN of padding would be NaN.
        behaviours = behaviours.masked_fill(~behaviour_mask[..., None], 0)
        hidden_RCLH = torch.einsum("rce,he,rle->rclh", targets, self.product, behaviours)
        hidden_RCLH = hidden_RCLH + self.behaviour(behaviours)[:, None]
        hidden_RCLH = hidden_RCLH + self.target(targets)[:, :, None]
        if self.side is not None:
            assert side is not None and side_mask is not None  # the three come together
            side = side.masked_fill(~side_mask, 0)
            hidden_RCLH = hidden_RCLH + side[..., None] * self.side
        score_RCL = self.score(torch.relu(hidden_RCLH)).squeeze(-1)
        weights_RCL = masked_softmax(score_RCL, behaviour_mask[:, None])
        interest = weights_RCL @ behaviours
        if side is None:
            return interest
        return torch.cat([interest, (weights_RCL * side).sum(-1, keepdim=True)], dim=-1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where ``mask`` is True; zeros where it is False.

    A row without a single True is all zeros.
    """
    # The least float, not -inf: a row without any True would be NaN, and so would its gradient.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1).masked_fill(~mask, 0)
