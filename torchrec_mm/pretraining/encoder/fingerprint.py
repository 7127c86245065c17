"""Fingerprints: whether two encoders give equal vectors, said in 16 hex digits."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchrec_mm.pretraining.encoder.backbones import ImageBackbone
from torchrec_mm.pretraining.encoder.encoder import Encoder
from torchrec_mm.pretraining.encoder.item_encoder import FUSED, ItemEncoder

# To be raised with any change to how a picture is decoded and resized (data/content/images.py) or
# a text prepared, so that vectors from before and after are not mixed.
PREPROCESSING = 1

# Of a transformers config: where it came from, and who wrote it.
NO_SETTINGS = ("_name_or_path", "transformers_version")


def frozen_fingerprint(encoder: Encoder) -> str:
    """Names the exact values of all that training never changes: 16 hex digits."""
    trained = encoder.trained_state().keys()
    frozen = ((n, value) for n, value in encoder.state_dict().items() if n not in trained)
    return _digest([], frozen)


def origin_of(name: str, encoder: ItemEncoder, space: str) -> str:
    """What item vectors carry to be told from others: name of the encoder, space, fingerprint."""
    return f"{name}-{space}-{encoder_fingerprint(encoder, space)}"


def encoder_fingerprint(encoder: ItemEncoder, space: str) -> str:
    """Names all that the vectors of one space depend on: 16 hex digits.

    Args:
        encoder: trained or not; its training mode, device and precision do not matter.
        space: "image", "text" or "fused", one of ``encoder.spaces``.

    Returns:
        Equal for equal weights, architecture and preprocessing: size and normalisation of
        pictures, vocabulary, rules and longest text of the tokeniser. Different for any change.
    """
    parts = [*encoder.encoders.values()] if space == FUSED else [encoder.encoders[space]]
    described = [{"preprocessing": PREPROCESSING}, *map(_description, parts)]
    modules: list[nn.Module] = [*parts]
    if space == FUSED and encoder.gate is not None:
        modules.append(encoder.gate)
    tensors = (
        (f"{i}.{name}", value)
        for i, module in enumerate(modules)
        for name, value in module.state_dict().items()
    )
    return _digest(described, tensors)


def features_fingerprint(encoder: Encoder) -> str:
    """Names all that the backbone's features depend on, whatever the head: 16 hex digits."""
    described = [{"preprocessing": PREPROCESSING}, _description(encoder)]
    return _digest(described, encoder.backbone.state_dict().items())


def _description(encoder: Encoder) -> dict[str, Any]:
    backbone = encoder.backbone
    described = {"modality": encoder.spec.modality, "architecture": _architecture(backbone.model)}
    if isinstance(backbone, ImageBackbone):
        normalisation = [values.flatten().tolist() for values in (backbone.mean, backbone.std)]
        return described | {"size": encoder.spec.image_size, "normalisation": normalisation}
    return described | {"tokeniser": backbone.tokenise.description()}


def _architecture(model: nn.Module) -> list[Any]:
    """What a model computes besides its weights: kinds of modules, their numbers and settings.

    Weights do not tell, for example, the number of heads, an activation or how texts are pooled.
    """
    modules = [
        [name, type(module).__name__, module.extra_repr(), _numbers(module)]
        for name, module in model.named_modules()
    ]
    settings: Iterable[Any] = (getattr(module, "config", None) for module in model.modules())
    known: dict[str, Any] = next(
        (config.to_dict() for config in settings if hasattr(config, "to_dict")), {}
    )
    known = {name: str(value) for name, value in known.items() if name not in NO_SETTINGS}
    return [repr(model), known, *modules]


def _numbers(module: nn.Module) -> dict[str, Any]:
    """The public attributes that are numbers; not whether it trains."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if isinstance(value, int | float) and not name.startswith("_") and name != "training"
    }


def _digest(described: list[Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8)
    for name, value in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
