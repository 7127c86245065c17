"""Modules of plain tensors: how item vectors become features of a ranker.

Imports torch, nothing else: no configuration, no device, no rank. A module's weights keep their
names, which checkpoints hold. What ``__all__`` names is public.

Read first: simtier.py
"""

from torchrec_mm.nn.make import Make, MakeFeatures
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.nn.simtier import SimTier, cosine_similarity
from torchrec_mm.nn.target_attention import TargetAttention

__all__ = ["MLP", "Make", "MakeFeatures", "SimTier", "TargetAttention", "cosine_similarity"]
