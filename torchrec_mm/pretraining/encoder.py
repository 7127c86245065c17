"""One modality's encoder: a backbone and a projection head, some of it trained.

Shape letters: B inputs, F feature width, D item-vector width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.backbones import Backbone, load_image_backbone, load_text_backbone
from torchrec_mm.pretraining.head import ProjectionHead

LOADERS = {"image": load_image_backbone, "text": load_text_backbone}


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is built from.

    modality: "image" or "text". backbone: a name that ``load_*_backbone`` knows.
    trainable_layers: the last layers of the backbone that are trained along with the head; 0 none,
    -1 all. image_size: height and width of pictures in pixels (kept for texts, unused).
    """

    modality: str
    backbone: str
    trainable_layers: int
    image_size: int


class Encoder(nn.Module):
    """Pictures or texts to unit vectors.

    Parameters outside the head and the trainable layers are frozen.
    """

    def __init__(self, backbone: Backbone, trainable_layers: int) -> None:
        """``trainable_layers``: see EncoderSpec.

        Raises:
            InputError: the backbone has fewer layers.
        """
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        layers = backbone.layers()
        if not -1 <= trainable_layers <= len(layers):
            raise InputError(
                f"trainable_layers must be in [-1, {len(layers)}], the layers of this backbone, "
                f"got {trainable_layers}"
            )
        count = len(layers) if trainable_layers == -1 else trainable_layers
        for layer in layers[len(layers) - count :]:
            for parameter in layer:
                parameter.requires_grad_(True)
        self.head = ProjectionHead(feature_width(backbone))

    def forward(self, inputs: Tensor | list[str]) -> Tensor:
        """B pictures (B, 3, H, W) uint8 or B strings -> (B, D) float, unit length."""
        return self.head(self.backbone(inputs))

    @property
    def backbone_is_frozen(self) -> bool:
        """True when features of the backbone may be computed once and kept."""
        return not any(parameter.requires_grad for parameter in self.backbone.parameters())

    def trained_state(self) -> dict[str, Tensor]:
        """The parameters that training may change, by name."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}


def build_encoder(spec: EncoderSpec) -> Encoder:
    """The off-the-shelf encoder of ``spec`` with a head that is not fitted yet."""
    torch.manual_seed(0)  # the correction's first layer: the same on every rank and every run
    return Encoder(LOADERS[spec.modality](spec.backbone), spec.trainable_layers)


@torch.no_grad()
def feature_width(backbone: Backbone) -> int:
    """F of a backbone, found by asking it for one feature."""
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    return backbone(images if hasattr(backbone, "mean") else ["x"]).shape[1]
