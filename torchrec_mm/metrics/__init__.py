"""Exact metrics of plain arrays.

Imports numpy, nothing else, so that commands without a model start without torch; what needs torch
(retrieval.py, sphere.py, binned_auc.py) is imported by its own path. Ties count one half, and the
order of what is given changes no bit. Read auc.py first; README.md says what GAUC means here.
"""

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import Gauc, gauc
from torchrec_mm.metrics.log_loss import log_loss, normalized_entropy

__all__ = ["Gauc", "auc", "gauc", "log_loss", "normalized_entropy"]
