"""The flags of encoders: what they are built from and computed in; apps.pretrain inherits them.

Imports no torch: ``apps.pretrain --help`` does without.
"""

from dataclasses import dataclass
from typing import Literal

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Backbones, the width of vectors, and what of it is trained."""

    image_encoder: str = "efficientnet-lite0"
    """efficientnet-lite0 (packaged), a folder saved by timm, or the name of a timm model"""
    text_encoder: str = "all-minilm-l6-v2"
    """all-minilm-l6-v2 (packaged), a folder saved by sentence-transformers, or a model's name"""
    width: int = 384
    """numbers in a vector of one modality; fused ones are twice as wide. Where a backbone has as
    many features or fewer, training starts from just them, else from their principal components"""
    image_size: int = 64
    """height and width in pixels that pictures are resized to, at least 32"""
    augment: bool = False
    """crop, flip and colour query photos anew each time; needs trainable layers"""
    trainable_layers: int = 0
    """last layers of each backbone trained along with the head; 0: features are computed once
    and only the head is trained, -1: all layers"""
    batch_norm: Literal["frozen", "synchronised"] = "frozen"
    """of trained backbones: statistics as they came, or of the global batch over all ranks"""
    gradient_checkpointing: bool = False
    """compute backbones' activations again in the backward pass instead of keeping them"""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """of backbones and heads (autocast); weights, losses and vectors are float32"""
    compile: bool = False
    """compile backbones with torch.compile"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that would not be heeded."""
        check_fields(self, lambda x: x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x >= 1, "at least 1", "width")
        if self.trainable_layers:
            return
        of_trained_backbones = {
            "augment": self.augment,
            "gradient_checkpointing": self.gradient_checkpointing,
            "batch_norm": self.batch_norm != "frozen",
        }
        for name, is_given in of_trained_backbones.items():
            if is_given:
                rule = f"{name} must be left out with trainable_layers 0"
                raise InputError(f"{rule}, got {getattr(self, name)}")
