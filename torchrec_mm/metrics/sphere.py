"""How unit vectors lie on their sphere: near to what they match, far from all else.

Alignment and uniformity as in Wang & Isola, "Understanding Contrastive Representation Learning
through Alignment and Uniformity on the Hypersphere", ICML 2020, arXiv 2005.10242, with their
exponents 2 and 2.

Shape letters: P pairs, N vectors, D vector width.
"""

import torch
from torch import Tensor

UNIFORMITY_SAMPLE = 4096
CHUNK = 65_536
BLOCK = 512


def alignment(one: Tensor, other: Tensor) -> float | None:
    """Mean squared distance of matching vectors, in [0, 4]; 0 is perfect, 2 is unrelated.

    Args:
        one: (P, D) unit vectors.
        other: (P, D) unit vectors, row by row what ``one`` should be near to.

    Returns:
        The mean, None for P = 0.
    """
    if len(one) == 0:
        return None
    return (one.double() - other.double()).square().sum(dim=1).mean().item()


def uniformity(vectors: Tensor, present: Tensor, seed: int = 0) -> float | None:
    """Log of the mean of exp(-2 squared distance) over pairs of different rows, in [-8, 0].

    Lower is more even: vectors spread at random in many dimensions are near -4, equal ones at 0.
    Exact for at most ``UNIFORMITY_SAMPLE`` vectors; of more, over all pairs of that many rows,
    drawn by ``seed`` without replacement.

    Args:
        vectors: (N, D) unit vectors, anything where not present.
        present: (N,) bool, True where there is a vector.
        seed: of the sample.

    Returns:
        The logarithm, None for fewer than two vectors.
    """
    rows = torch.nonzero(present.cpu())[:, 0]
    if len(rows) < 2:
        return None
    if len(rows) > UNIFORMITY_SAMPLE:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = rows[order[:UNIFORMITY_SAMPLE]]
    # Float64: of vectors nearly alike, float32 would leave a difference of rounding.
    sample = vectors[rows.to(vectors.device)].double()
    squares = sample.square().sum(dim=1)
    total = sample.new_zeros(())
    # By matrix products, |a|^2 + |b|^2 - 2 ab: torch.pdist takes five times as long on a CPU.
    for start in range(0, len(sample), BLOCK):
        block = slice(start, start + BLOCK)
        distance = squares[block, None] + squares[start:] - 2 * sample[block] @ sample[start:].T
        total += distance.clamp_(min=0).mul_(-2).exp_().triu_(1).sum()  # each pair once
    return (total / (len(sample) * (len(sample) - 1) / 2)).log().item()


def mean_cosine(vectors: Tensor, present: Tensor) -> float | None:
    """Mean cosine over all pairs of different rows; near 1 when all vectors have become one.

    Exact in O(N D): the squared length of the sum of all vectors is N plus all their cosines.

    Args:
        vectors: (N, D) unit vectors, anything where not present.
        present: (N,) bool, True where there is a vector.

    Returns:
        The mean, in [-1 / (n - 1), 1] for n vectors, up to rounding; None for fewer than two.
    """
    count = int(present.sum())
    if count < 2:
        return None
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    squares = torch.zeros_like(total)
    for chunk, has in zip(vectors.split(CHUNK), present.split(CHUNK), strict=True):
        known = chunk[has.to(chunk.device)].double()
        total += known.sum(dim=0)
        squares += known.square().sum(dim=0)
    return ((total.square() - squares).sum() / (count * (count - 1))).item()
