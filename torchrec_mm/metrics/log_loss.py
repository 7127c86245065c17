"""Log loss and normalized entropy, from logits, in float64.

Shape letters: N impressions.
"""

import numpy as np

from torchrec_mm.metrics.auc import check_impressions


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean of -log(probability given to what happened), in nats.

    Computed as max(x, 0) - x*y + log(1 + exp(-|x|)): exact for logits of any size, where going
    through the probability would give log(0).

    Args:
        labels: (N,) 0 or 1.
        logits: (N,) float, before the sigmoid.

    Returns:
        A float >= 0; nan of no impressions.

    Raises:
        ValueError: as ``auc``.

    >>> round(log_loss(np.array([1, 0]), np.array([0.0, 0.0])), 4)
    0.6931
    """
    labels, logits = check_impressions(labels, logits)
    if len(labels) == 0:
        return float("nan")
    return float(losses_of(labels, logits).mean())


def losses_of(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(N,) float64 loss of each impression, (N,) labels 0 or 1 and float logits."""
    logits = logits.astype(np.float64)
    return np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))


def normalized_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Log loss over the entropy of the base rate: 1 is no better than knowing the click rate.

    Args:
        labels: (N,) 0 or 1.
        logits: (N,) float, before the sigmoid.

    Returns:
        A float >= 0; nan when one of the two labels does not occur.

    Raises:
        ValueError: as ``auc``.

    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.

    >>> normalized_entropy(np.array([1, 0]), np.array([0.0, 0.0]))
    1.0
    """
    loss = log_loss(labels, logits)
    rate = float(np.mean(labels)) if len(labels) else 0.0
    if rate in (0.0, 1.0):
        return float("nan")
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))
