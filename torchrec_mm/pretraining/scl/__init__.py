"""Semantic-aware contrastive learning: what trains the encoders of phase one.

What ``__all__`` names is public, knows neither pictures nor texts, and works with any encoder of
unit vectors; scl.py makes of it one training step for this project's encoders and batches. Names
of tensors are those of checkpoints on disk.

Read first: contrast.py
"""

from torchrec_mm.pretraining.scl.contrast import ContrastLoss
from torchrec_mm.pretraining.scl.memory_bank import MemoryBank
from torchrec_mm.pretraining.scl.momentum import momentum_copy, update_momentum

__all__ = ["ContrastLoss", "MemoryBank", "momentum_copy", "update_momentum"]
