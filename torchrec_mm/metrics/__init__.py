"""Exact metrics of plain arrays: ties count one half, and order changes no bit.

Importing it loads numpy, nothing else, so that commands without a model start without torch; what
needs torch (retrieval.py, sphere.py, binned_auc.py) is imported by its own path. What ``__all__``
names, here and in retrieval.py, is public; README.md says what GAUC means.

Read first: auc.py
"""

from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import Gauc, gauc
from torchrec_mm.metrics.log_loss import log_loss, normalized_entropy

__all__ = ["Gauc", "auc", "gauc", "log_loss", "normalized_entropy"]
