"""Semantic-aware contrastive learning: what trains the encoders of phase one.

The names below know neither pictures nor texts, and work with any encoder of unit vectors: read
contrast.py first. scl.py makes one training step of them for this project's encoders and batches.
"""

from torchrec_mm.pretraining.scl.contrast import ContrastLoss
from torchrec_mm.pretraining.scl.memory_bank import MemoryBank
from torchrec_mm.pretraining.scl.momentum import momentum_copy, update_momentum

__all__ = ["ContrastLoss", "MemoryBank", "momentum_copy", "update_momentum"]
