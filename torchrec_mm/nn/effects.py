"""Effects of one group, a user's own, by ridge regression on what a click model leaves open.

A generalised linear mixed model's random effects (Zhang et al., GLMix, KDD 2016) in one Newton step
from zero: of a user all that matters is a gradient and a curvature, sums over his impressions.
How much is shrunk follows how much a user was seen, and, as the precisions are the data's own, how
much users differ at all.

Shape letters: R requests, I impressions, U users, W columns.
"""

from functools import cache

import torch
from torch import Tensor

PRECISIONS = tuple(2.0**power for power in range(-2, 13))
SWEEPS = 3  # over both precisions; in the second hardly any changes


def sums_of(
    columns: Tensor, logits: Tensor, labels: Tensor, weights: Tensor, offsets: Tensor
) -> Tensor:
    """(R, W + W * W) what the impressions of each request add to its user's sums.

    A product of matrices for each request, padded to the longest: of an outer product for each
    impression, most of the time would go into adding them up.

    Args:
        columns: (I, W) that effects are of. logits, labels, weights: (I,).
        offsets: (R + 1,) int64, where each request's impressions begin.
    """
    rate = torch.sigmoid(logits)
    lengths = offsets.diff()
    request = torch.repeat_interleave(lengths)
    place = torch.arange(len(columns), device=columns.device) - offsets[request]
    shape = (len(lengths), int(lengths.max()), columns.shape[1])
    padded, curved, slopes = (
        columns.new_zeros(shape),
        columns.new_zeros(shape),
        columns.new_zeros(shape[:2]),
    )
    padded[request, place] = columns
    curved[request, place] = columns * (rate * (1 - rate) * weights)[:, None]
    slopes[request, place] = (labels - rate) * weights
    gradient = torch.bmm(slopes[:, None], padded)[:, 0]
    return torch.cat([gradient, torch.bmm(padded.mT, curved).flatten(1)], dim=1)


def solve(sums: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """(U, W) effects, and () the log evidence of the precisions.

    Args:
        sums: (U, W + W * W), of ``sums_of``, over each user's impressions.
        precision: (W,) above 0, of the normal prior of each column's effects, whose mean is 0.
    """
    width = len(precision)
    gradient, curvature = sums.split([width, width * width], dim=1)
    factor = torch.linalg.cholesky(curvature.view(-1, width, width) + torch.diag(precision))
    effects = torch.cholesky_solve(gradient[:, :, None], factor)[:, :, 0]
    shrunk = precision.log().sum() / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return effects, (shrunk + (effects * gradient).sum(1) / 2).sum()


def likely_precision(sums: Tensor, width: int) -> Tensor:
    """(W,) of PRECISIONS the likeliest: one of the first column, one of all others.

    ``sums``: (U, W + W * W), U may be 0: then nothing is known, and all is shrunk to nothing.
    """
    found = [PRECISIONS[-1]] * 2

    @cache
    def evidence(first: float, others: float) -> float:
        return float(solve(sums, by_column([first, others], width, sums))[1])

    for _ in range(SWEEPS):
        # Of equals the largest: without evidence there are no effects.
        found[0] = max(reversed(PRECISIONS), key=lambda value: evidence(value, found[1]))
        found[1] = max(reversed(PRECISIONS), key=lambda value: evidence(found[0], value))
    return by_column(found, width, sums)


def by_column(pair: list[float], width: int, like: Tensor) -> Tensor:
    """(W,) the first of a pair, then the second."""
    return like.new_tensor([pair[0]] + [pair[1]] * (width - 1))


def principal_directions(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(D,) mean and (D, count) directions in which ``vectors`` differ most, for effects of them.

    What they project a vector to has a mean square length of 1. Directions beyond D are zeros.

    ``vectors``: (n, D) of unit length, n may be 0.
    """
    width = vectors.shape[1]
    if not len(vectors):
        return vectors.new_zeros(width), vectors.new_zeros(width, count)
    double = vectors.double()
    mean = double.mean(0)
    centred = double - mean
    values, directions = torch.linalg.eigh(centred.T @ centred / len(vectors))
    first = directions.flip(1)[:, :count]
    scale = values.flip(0)[:count].clamp(min=0).sum().sqrt()
    if scale > 1e-6:  # else all vectors are one
        first = first / scale
    else:
        first = torch.zeros_like(first)
    padded = torch.nn.functional.pad(first, (0, count - first.shape[1]))
    return mean.to(vectors.dtype), padded.to(vectors.dtype)
