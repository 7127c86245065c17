"""InfoNCE: tell the right key from many wrong ones.

Shape letters: B queries, M candidate negatives, D vector width.
"""

import torch
from torch import Tensor


def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor, is_negative: Tensor, temperature: Tensor
) -> Tensor:
    """Cross-entropy of each query's positive key against its negatives.

    -log(exp(q.p / t) / (exp(q.p / t) + sum over negatives of exp(q.n / t))). Which of the shared
    candidates are negatives of a query is the caller's to say: a key of the same item as the
    positive, or of the same query, would be a false negative.

    Args:
        query: (B, D) float, unit vectors; receives the gradient.
        positive: (B, D) float, unit vectors, the key each query should find.
        negatives: (M, D) float, unit vectors shared by all queries; M may be 0.
        is_negative: (B, M) bool, True where the candidate counts as a negative of the query.
        temperature: scalar > 0 that divides the cosine.

    Returns:
        (B,) float, at least 0; 0 for a query without negatives.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; memory-bank negatives as in He et
    al., CVPR 2020, arXiv:1911.05722.
    """
    if is_negative.shape != (len(query), len(negatives)) or is_negative.dtype != torch.bool:
        raise ValueError(
            f"is_negative must be bool (B, M) = {(len(query), len(negatives))}, "
            f"got {is_negative.dtype} {tuple(is_negative.shape)}"
        )
    scaled_BD = query / temperature  # before the product: (B, D) is smaller than (B, M)
    positive_logit_B = (scaled_BD * positive).sum(dim=1)
    logit_BM = scaled_BD @ negatives.T
    # Finite, where -inf would turn the gradient of a query without negatives into NaN
    logit_BM.masked_fill_(~is_negative, torch.finfo(logit_BM.dtype).min / 2)
    wrong_logit_B = torch.logsumexp(logit_BM, dim=1)
    return torch.logaddexp(wrong_logit_B, positive_logit_B) - positive_logit_B
