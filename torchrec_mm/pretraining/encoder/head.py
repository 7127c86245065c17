"""Projection head: the features of any backbone to a unit vector of one width.

Shape letters: B inputs, S sampled features, F feature width, D item-vector width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VECTOR_WIDTH = 384  # of each modality, unless told otherwise: all features of a small text encoder
HIDDEN_WIDTH = 512
NO_SPREAD = 1e-10  # of the largest variance: rounding of float32 features, in no direction at all


class ProjectionHead(nn.Module):
    """The features, or their principal components, plus a learned correction; normalised.

    normalize(W x + b + MLP(x)), where the MLP's last layer starts at zero: an untrained head is
    the off-the-shelf encoder, and training starts from there (ours). With D >= F it is that
    without loss: W starts as the identity and b at zero. With D < F both are to be fitted.
    """

    def __init__(self, feature_width: int, width: int) -> None:
        """``feature_width``: F. ``width``: D."""
        super().__init__()
        self.projection = nn.Linear(feature_width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        first, last = nn.Linear(feature_width, HIDDEN_WIDTH), nn.Linear(HIDDEN_WIDTH, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(first, nn.GELU(), last)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) float, unit length -> (B, D) float32, unit length, also under autocast."""
        return F.normalize((self.projection(features) + self.correction(features)).float(), dim=1)

    @property
    def keeps_all(self) -> bool:
        """True when untrained vectors are the features: there is nothing to fit."""
        return self.projection.out_features >= self.projection.in_features

    @torch.no_grad()
    def fit_principal_components(self, features: Tensor) -> None:
        """Set W and b to the D principal components of centred features; D < F.

        Args:
            features: (S, F) float. With fewer than D components, as of few rows, the other
                outputs are zero; when all rows are equal there is nothing to centre, and their
                direction is kept.
        """
        sample = features.double()
        mean = sample.mean(dim=0)
        if (sample - mean).norm(dim=1).max() < 1e-6:
            mean = torch.zeros_like(mean)
        covariance = (sample - mean).T @ (sample - mean)
        spread, vectors = torch.linalg.eigh(covariance)
        width = self.projection.out_features
        directions = vectors.flip(1)[:, :width].T
        # An eigenvector's sign is arbitrary: fix it, so that machines and thread counts agree
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        spread = spread.flip(0)[:width, None]
        directions = directions * largest.sign() * (spread > NO_SPREAD * spread[0])
        self.projection.weight.zero_()
        self.projection.bias.zero_()
        self.projection.weight[: len(directions)] = directions.float()
        self.projection.bias[: len(directions)] = (-directions @ mean).float()
