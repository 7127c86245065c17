"""AUC of a stream of impressions in bounded memory: counts by bins of the logit.

Shape letters: N impressions, B bins.
"""

import torch
from torch import Tensor

BINS = 1 << 16
COARSE_BINS = 1 << 12  # of a look at a few steps: all bins would cost more than what they count
LIMIT = 16.0  # logits beyond it are counted in the outermost bins: probabilities of 1e-7


class BinnedAuc:
    """Counts that add up, over batches, over ranks, and over a run that was interrupted.

    Logits in the same bin, 2 * LIMIT / BINS = 0.0005 wide, count as tied.

    counts: (2, B) int64, non-clicks and clicks.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.counts = torch.zeros(2, BINS, dtype=torch.int64, device=device)

    def add(self, labels: Tensor, logits: Tensor) -> None:
        """Count impressions: labels (N,) in {0, 1}, logits (N,) float; NaN is the lowest."""
        bins = (logits.double() + LIMIT) * (BINS / (2 * LIMIT))
        bins = bins.nan_to_num(nan=0.0).clamp(0, BINS - 1).long() + (labels > 0.5) * BINS
        self.counts.view(-1).index_add_(0, bins, torch.ones_like(bins))

    def coarse(self) -> Tensor:
        """(2, COARSE_BINS) int64, a copy of the counts: logits within 0.008 are tied there."""
        return self.counts.view(2, COARSE_BINS, -1).sum(2)

    def value(self) -> float:
        """AUC in [0, 1]; nan when one of the two labels did not occur."""
        others, clicks = self.counts.cpu().double()
        pairs = others.sum() * clicks.sum()
        if pairs == 0:
            return float("nan")
        below = others.cumsum(0) - others
        return ((clicks * (below + others / 2)).sum() / pairs).item()
